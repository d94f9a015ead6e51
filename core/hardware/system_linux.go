package hardware

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// systemReader keeps the kernel's files open and reads each again from its start, which costs a
// fiftieth of opening and parsing them anew. Not safe for concurrent use.
type systemReader struct {
	root     string
	stat     *os.File // nil files read as nothing
	meminfo  *os.File
	netdev   *os.File
	sensors  []*os.File
	buffer   []byte
	ticks    cpuTicks        // at the last reading of the processor
	load     *float64        // as of then
	physical map[string]bool // interfaces seen, and whether a device is behind them
}

// An interval of the processor's load has at least this many ticks a CPU: fewer say nothing.
const ticksForLoad = 10

// Interfaces come and go with containers; beyond this many the memory of them starts anew.
const interfacesKept = 256

type cpuTicks struct{ busy, total, cpus uint64 }

func openSystem(o Options) *systemReader {
	s := &systemReader{
		root:     o.root,
		stat:     open(o.root, "proc/stat"),
		meminfo:  open(o.root, "proc/meminfo"),
		netdev:   open(o.root, "proc/net/dev"),
		buffer:   make([]byte, 4<<10),
		physical: map[string]bool{},
	}
	for _, path := range cpuSensors(o.root) {
		s.sensors = append(s.sensors, open(path))
	}
	s.readLoad()
	return s
}

func open(path ...string) *os.File {
	file, err := os.Open(filepath.Join(path...))
	if err != nil {
		return nil
	}
	return file
}

func (s *systemReader) close() {
	for _, file := range append(s.sensors, s.stat, s.meminfo, s.netdev) {
		file.Close() // of a nil file only says so
	}
}

func (s *systemReader) read(diskPath string, sample *Sample) {
	s.readLoad()
	sample.CPUUtilization = s.load
	sample.CPUTempC = s.temperature()
	sample.RAMUsageMB = s.ramUsage()
	sample.NetRxBytes, sample.NetTxBytes = s.traffic()

	var disk unix.Statfs_t
	if unix.Statfs(diskPath, &disk) == nil {
		sample.DiskUsageGB = new(int64((disk.Blocks - disk.Bfree) * uint64(disk.Bsize) / gib))
	}
}

// again reads a file from its start; the bytes are valid until the next call.
func (s *systemReader) again(file *os.File) []byte {
	for {
		n, _ := file.ReadAt(s.buffer, 0) // an error or a nil file leaves n at what there is
		if n < len(s.buffer) {
			return s.buffer[:n]
		}
		s.buffer = make([]byte, 2*len(s.buffer))
	}
}

// readLoad takes the processors' time since the last reading, unless that is too short to tell.
func (s *systemReader) readLoad() {
	now, ok := parseTicks(s.again(s.stat))
	if !ok {
		s.load = nil
		return
	}
	busy, total := now.busy-s.ticks.busy, now.total-s.ticks.total
	switch {
	case now.total < s.ticks.total, now.busy < s.ticks.busy: // a processor was taken out
		s.load = nil
	case s.ticks.total == 0:
	case total < ticksForLoad*now.cpus:
		return
	default:
		s.load = new(100 * float64(busy) / float64(total))
	}
	s.ticks = now
}

// parseTicks reads the first line of /proc/stat: user nice system idle iowait irq softirq steal,
// then guest times, which user and nice contain already; and counts the lines of single CPUs.
func parseTicks(stat []byte) (t cpuTicks, ok bool) {
	first, rest, _ := bytes.Cut(stat, []byte("\n"))
	column := -1
	for field := range bytes.FieldsSeq(first) {
		if column >= 8 {
			break
		}
		if column >= 0 {
			value := number(field)
			t.total += value
			if column != 3 && column != 4 {
				t.busy += value
			}
		}
		column++
	}
	for bytes.HasPrefix(rest, []byte("cpu")) {
		t.cpus++
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	return t, t.total > 0
}

// temperature is that of the hottest processor.
func (s *systemReader) temperature() *float64 {
	var hottest *float64
	for _, sensor := range s.sensors {
		text := bytes.TrimSpace(s.again(sensor))
		if milli, err := strconv.ParseInt(string(text), 10, 64); err == nil {
			if celsius := float64(milli) / 1000; hottest == nil || celsius > *hottest {
				hottest = &celsius
			}
		}
	}
	return hottest
}

// ramUsage is what cannot be had any more: caches that would make room do not count.
func (s *systemReader) ramUsage() *int64 {
	text := s.again(s.meminfo)
	total, available := kilobytes(text, "MemTotal:"), kilobytes(text, "MemAvailable:")
	if total == 0 || available == 0 || available > total {
		return nil
	}
	return new(int64((total - available) / 1024))
}

func kilobytes(meminfo []byte, name string) uint64 {
	_, after, _ := bytes.Cut(meminfo, []byte(name))
	for field := range bytes.FieldsSeq(after) {
		return number(field)
	}
	return 0
}

// traffic sums the interfaces that are real: what crosses bridges, containers and tunnels crosses
// one of those as well, if it leaves the machine.
func (s *systemReader) traffic() (received, sent *uint64) {
	var rx, tx uint64
	var any bool
	for row := range bytes.Lines(s.again(s.netdev)) {
		name, counters, ok := bytes.Cut(row, []byte(":"))
		if !ok || !s.isPhysical(bytes.TrimSpace(name)) {
			continue
		}
		any = true
		column := 0
		for field := range bytes.FieldsSeq(counters) {
			switch column {
			case 0:
				rx += number(field)
			case 8:
				tx += number(field)
			}
			column++
		}
	}
	if !any {
		return nil, nil
	}
	return &rx, &tx
}

func (s *systemReader) isPhysical(name []byte) bool {
	physical, seen := s.physical[string(name)]
	if seen {
		return physical
	}
	if len(s.physical) >= interfacesKept {
		clear(s.physical)
	}
	_, err := os.Stat(filepath.Join(s.root, "sys/class/net", string(name), "device"))
	s.physical[string(name)] = err == nil
	return err == nil
}

// number is 0 for what is none.
func number(text []byte) uint64 {
	n, _ := strconv.ParseUint(string(text), 10, 64)
	return n
}
