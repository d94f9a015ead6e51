package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// AMD's GPUs are read from what its kernel driver shows below /sys; no library is needed.

// leastVRAM tells cards from what is built into a processor, whose memory is the machine's own and which
// often draws its desktop.
const leastVRAM = 2 * gib

var (
	renderPattern = regexp.MustCompile(`^renderD[1-9][0-9]{2,5}$`)
	uniquePattern = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// amdCard is a GPU as the kernel shows it.
type amdCard struct {
	render string // its device below /dev/dri
	device string // directory of the PCI device
	bus    string // its PCI address
	id     string // what tells it from all others
}

// amdCards are those that can compute, in the order of their PCI addresses.
func amdCards(o Options) []amdCard {
	drm := filepath.Join(o.root, "sys/class/drm")
	entries, _ := os.ReadDir(drm)
	computing := computeNodes(o)
	var cards []amdCard
	for _, entry := range entries {
		render, device := entry.Name(), filepath.Join(drm, entry.Name(), "device")
		if !renderPattern.MatchString(render) || line(device, "vendor") != "0x1002" || computing[render] == "" {
			continue
		}
		if n := bytesIn(device, "mem_info_vram_total"); n == nil || *n < leastVRAM {
			continue
		}
		card := amdCard{render: render, device: device}
		if link, err := filepath.EvalSymlinks(device); err == nil {
			card.bus = filepath.Base(link)
		}
		// Cards of the simpler kind have no number of their own, and are told by where they are plugged in.
		card.id = "PCI-" + card.bus
		if unique := line(device, "unique_id"); uniquePattern.MatchString(unique) {
			card.id = "GPU-" + unique
		}
		cards = append(cards, card)
	}
	slices.SortFunc(cards, func(a, b amdCard) int { return strings.Compare(a.bus, b.bus) })
	return cards
}

// computeNodes tells by which number the kernel's compute driver knows a card; one it does not know can draw
// only.
func computeNodes(o Options) map[string]string {
	nodes := filepath.Join(o.root, "sys/class/kfd/kfd/topology/nodes")
	entries, _ := os.ReadDir(nodes)
	known := map[string]string{}
	for _, entry := range entries {
		for row := range strings.Lines(line(nodes, entry.Name(), "properties")) {
			name, minor, _ := strings.Cut(strings.TrimSpace(row), " ")
			if name == "drm_render_minor" && minor != "0" && minor != "" {
				known["renderD"+minor] = line(nodes, entry.Name(), "gpu_id")
			}
		}
	}
	return known
}

// addAMD adds AMD's GPUs. Their numbers follow those of NVIDIA's, of which the bus knows also while their
// driver does not answer.
func (s *gpuSurvey) addAMD(o Options) {
	cards := amdCards(o)
	index := max(s.counted, nvidiaCardsOnBus(o))
	for _, card := range cards {
		gpu := describeAMD(o, card)
		for slices.ContainsFunc(s.gpus, func(other GPU) bool { return other.Index == index }) {
			index++
		}
		if index > mostIndex {
			s.gaps = append(s.gaps, gpuUnnumberedGap(gpu))
			continue
		}
		gpu.Index = index
		index++
		s.add(gpu)
	}
	if len(cards) > 0 {
		s.gaps = slices.DeleteFunc(s.gaps, func(gap Gap) bool { return gap.Code == "no_gpu" })
	}
}

func describeAMD(o Options, card amdCard) GPU {
	gpu := GPU{
		UUID: card.id, Vendor: amd, Model: modelOf(o, card), Render: card.render,
		PCIBusID: known(card.bus), PowerLimitW: micro(hwmon(card.device), "power1_cap"),
		PCIeWidth: parsed[int](line(card.device, "max_link_width")), PCIeGeneration: generation(line(card.device, "max_link_speed")),
	}
	if total := bytesIn(card.device, "mem_info_vram_total"); total != nil {
		gpu.VRAMTotalMB = new(*total / mib)
		if used := bytesIn(card.device, "mem_info_vram_used"); used != nil {
			gpu.VRAMAvailableMB = new((*total - *used) / mib)
		}
	}
	return gpu
}

// modelOf is what the card calls itself, or what the system's list calls cards of its kind.
func modelOf(o Options, card amdCard) string {
	if name := line(card.device, "product_name"); name != "" {
		return name
	}
	kind := strings.ToUpper(strings.TrimPrefix(line(card.device, "device"), "0x"))
	revision := strings.ToUpper(strings.TrimPrefix(line(card.device, "revision"), "0x"))
	for row := range strings.Lines(line(o.root, "usr/share/libdrm/amdgpu.ids")) {
		cells := strings.SplitN(row, ",", 3)
		if len(cells) == 3 && strings.TrimSpace(cells[0]) == kind && strings.TrimSpace(cells[1]) == revision {
			return strings.TrimSpace(cells[2])
		}
	}
	return "AMD GPU 1002:" + strings.ToLower(kind)
}

// generation of PCI Express with this speed, "16.0 GT/s PCIe".
func generation(speed string) *int {
	value, _, _ := strings.Cut(speed, " ")
	at := slices.Index([]string{"2.5", "5.0", "8.0", "16.0", "32.0", "64.0"}, value)
	if at < 0 {
		return nil
	}
	return new(at + 1)
}

// hwmon is the directory of the card's sensors.
func hwmon(device string) string {
	found, _ := filepath.Glob(filepath.Join(device, "hwmon", "hwmon*"))
	if len(found) == 0 {
		return filepath.Join(device, "hwmon", "none")
	}
	return found[0]
}

func bytesIn(path ...string) *int64 {
	n, err := strconv.ParseInt(line(path...), 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

// micro is a figure that the kernel gives in millionths.
func micro(path ...string) *float64 {
	if n := bytesIn(path...); n != nil {
		return new(float64(*n) / 1e6)
	}
	return nil
}

func readAMD(o Options, render string) (r gpuReading) {
	device := filepath.Join(o.root, "sys/class/drm", render, "device")
	sensors := hwmon(device)
	r.utilization = valueOf[float64](line(device, "gpu_busy_percent"))
	if used := bytesIn(device, "mem_info_vram_used"); used != nil {
		r.memoryUsedMB = value[int64]{*used / mib, true}
	}
	if milli := bytesIn(sensors, "temp1_input"); milli != nil {
		r.tempC = value[float64]{float64(*milli) / 1000, true}
	}
	for _, name := range []string{"power1_average", "power1_input"} {
		if watts := micro(sensors, name); watts != nil {
			r.powerW = value[float64]{*watts, true}
			break
		}
	}
	turns, most := bytesIn(sensors, "fan1_input"), bytesIn(sensors, "fan1_max")
	if turns != nil && most != nil && *most > 0 {
		r.fanPercent = value[float64]{min(100, 100*float64(*turns)/float64(*most)), true}
	}
	return r
}

// cardOf is the card that has this name now, whatever the system calls its device.
func cardOf(o Options, uuid string) (amdCard, bool) {
	cards := amdCards(o)
	at := slices.IndexFunc(cards, func(card amdCard) bool { return card.id == uuid })
	if at < 0 {
		return amdCard{}, false
	}
	return cards[at], true
}

func inspectAMD(o Options, gpu GPU) GPUState {
	state := GPUState{UUID: gpu.UUID}
	card, ok := cardOf(o, gpu.UUID)
	if !ok || card.render != gpu.Render {
		state.Lost = true
		return state
	}
	state.MemoryUsed, state.Memory = bytesIn(card.device, "mem_info_vram_used"), bytesIn(card.device, "mem_info_vram_total")
	state.Settings.PowerLimit = milliwatts(card)
	state.Compute = computingAMD(o, computeNodes(o)[card.render])
	return state
}

func milliwatts(card amdCard) *uint32 {
	if n := bytesIn(hwmon(card.device), "power1_cap"); n != nil && *n < 1e12 {
		return new(uint32(*n / 1000))
	}
	return nil
}

func tenantsAMD(o Options) (all []Tenancy) {
	cards := amdCards(o)
	if len(cards) == 0 {
		return nil
	}
	numbers := computeNodes(o)
	for _, card := range cards {
		all = append(all, Tenancy{UUID: card.id, Compute: computingAMD(o, numbers[card.render])})
	}
	return all
}

// computingAMD are the processes that hold memory of the card with this number; nil where the kernel does not
// tell. One that has merely looked at the cards holds none.
func computingAMD(o Options, number string) []Process {
	processes := filepath.Join(o.root, "sys/class/kfd/kfd/proc")
	entries, err := os.ReadDir(processes)
	if err != nil || number == "" {
		return nil
	}
	found := []Process{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if used := bytesIn(processes, entry.Name(), "vram_"+number); used != nil && *used > 0 {
			found = append(found, Process{PID: pid, Memory: used})
		}
	}
	return found
}

// restoreAMD writes the power limit, for which the agent has to be root.
func restoreAMD(o Options, gpu GPU, wanted Settings) error {
	card, ok := cardOf(o, gpu.UUID)
	if !ok || !differs(milliwatts(card), wanted.PowerLimit) {
		return nil
	}
	text := strconv.FormatInt(int64(*wanted.PowerLimit)*1000, 10)
	if err := os.WriteFile(filepath.Join(hwmon(card.device), "power1_cap"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("setting the power limit: %w", err)
	}
	return nil
}

// nvidiaCardsOnBus counts the NVIDIA display controllers that are plugged in, driver or not.
func nvidiaCardsOnBus(o Options) (n int) {
	devices := filepath.Join(o.root, "sys/bus/pci/devices")
	entries, _ := os.ReadDir(devices)
	for _, entry := range entries {
		if isNVIDIA(filepath.Join(devices, entry.Name())) {
			n++
		}
	}
	return n
}
