package rental

// The part of its disk that a host keeps for itself, where its owner has named none.
const (
	leastReserve = 20 << 30 // bytes
	reserveShare = 10       // one in so many
)

// UnnamedDisk is the disk, in bytes, of a rental whose order names no size: something will be written, and
// orders that cost nothing would never end.
const UnnamedDisk = 10 << 30

// DiskReserve is how many bytes of a disk of total bytes a host never gives to rentals: what its owner has named, or
// 10 %, at least 20 GiB. What is offered and when rentals are stopped both go by it.
func DiskReserve(named, total int64) int64 {
	if named > 0 {
		return named
	}
	return max(leastReserve, total/reserveShare)
}
