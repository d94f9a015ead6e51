package hardware

import "strings"

const (
	mostIndex    = 63 // an order can name no higher one
	slotsPerGPU  = 7  // instances that NVIDIA's GPUs can be divided into
	firstDivided = 8  // numbers below are for whole GPUs, however few there are
)

// instanceIndex numbers the instance in a slot of a divided GPU: 8 to 14 are those of GPU 0, 15 to 21 those of
// GPU 1, up to 63, so that no number depends on what is done to another GPU. Where there are more than eight
// GPUs the first number is the one after theirs. It is not ok where the numbers do not suffice. gpus is how
// many whole GPUs there are.
func instanceIndex(gpus, gpu, slot int) (index int, ok bool) {
	index = max(firstDivided, gpus) + gpu*slotsPerGPU + slot
	return index, slot < slotsPerGPU && index <= mostIndex
}

// isInstance tells the UUIDs of instances from those of whole GPUs.
func isInstance(uuid string) bool { return strings.HasPrefix(uuid, "MIG-") }

// addInstance puts an instance of whole, which is one of n GPUs, at the end of the list.
func (s *gpuSurvey) addInstance(gpu, whole GPU, slot, n int) {
	index, ok := instanceIndex(n, whole.Index, slot)
	if !ok {
		s.gaps = append(s.gaps, gpuUnnumberedGap(gpu))
		return
	}
	gpu.Index = index
	s.add(gpu)
}
