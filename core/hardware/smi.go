package hardware

import (
	"context"
	"math"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// smiDriver is the gpuDriver on NVIDIA's command-line program, for where the library cannot be
// loaded. A start of it costs up to half a second, and seconds where the driver is loaded for each,
// so that an answer is used for a while.
type smiDriver struct {
	program string // absolute
	latest  smiAnswer
	coming  chan smiAnswer // nil while the program does not run
}

// smiAnswer is what the program said of all GPUs, by UUID.
type smiAnswer struct {
	readings map[string]gpuReading
	at       time.Time
}

const (
	smiAnswersWithin = 5 * time.Second
	smiAnswerKeeps   = 5 * time.Second

	// smiReadingWaits is less than readGPUsWithin: a slow program is no driver that hangs.
	smiReadingWaits = readGPUsWithin * 9 / 10
	// smiAnswerServes bounds the age of an answer while the next one is late. Heartbeats are up to
	// a minute apart, and one tells what came just after the last.
	smiAnswerServes = time.Minute + smiAnswersWithin
)

// findSMI finds the program on the search path, but not in the working directory.
func findSMI() (*smiDriver, bool) {
	program, err := exec.LookPath("nvidia-smi")
	if err != nil || !filepath.IsAbs(program) {
		return nil, false
	}
	return &smiDriver{program: program}, true
}

func (d *smiDriver) close() {}

func (d *smiDriver) survey() (s gpuSurvey) {
	const basic = "index,uuid,name,driver_version,memory.total,memory.free,pci.bus_id"
	const full = basic + ",power.limit,compute_cap,pcie.link.gen.max,pcie.link.width.max,mig.mode.current"
	const middle = basic + ",power.limit,compute_cap,pcie.link.gen.max,pcie.link.width.max"
	const columns = 12
	var rows [][]string
	var err error
	for _, set := range []string{full, middle, basic} { // an old program refuses all for one column it does not know
		if rows, err = d.query(set); err == nil {
			break
		}
	}
	if err != nil {
		s.gaps = append(s.gaps, smiGap())
		return s
	}
	s.counted = len(rows)
	for i, row := range rows {
		index, err := strconv.Atoi(row[0])
		if err != nil || len(row) < 7 { // a sentence about the GPU in place of its values
			s.gaps = append(s.gaps, gpuLostGap(strconv.Itoa(i)))
			continue
		}
		row = append(row, make([]string, columns)...)
		s.driverVersion = known(row[3])
		gpu := GPU{
			Index: index, UUID: row[1], Model: row[2],
			VRAMTotalMB: parsed[int64](row[4]), VRAMAvailableMB: parsed[int64](row[5]),
			PCIBusID: known(row[6]), PowerLimitW: parsed[float64](row[7]), ComputeCapability: known(row[8]),
			PCIeGeneration: parsed[int](row[9]), PCIeWidth: parsed[int](row[10]),
		}
		if row[11] == "Enabled" {
			d.addInstances(&s, gpu, len(rows))
			continue
		}
		s.add(gpu)
	}
	if s.gpus == nil && s.gaps == nil {
		s.gaps = append(s.gaps, noGPUGap())
		return s
	}
	s.cudaVersion = d.cudaVersion()
	s.checkVersions()
	return s
}

// migLine is how the program lists an instance, below the line of its GPU.
var (
	gpuLine = regexp.MustCompile(`^GPU \d+: .*\(UUID: (GPU-[0-9A-Za-z-]+)\)`)
	migLine = regexp.MustCompile(`^\s+(MIG \S+)\s+Device\s+(\d+): \(UUID: (MIG-[0-9A-Za-z/-]+)\)`)
)

// addInstances puts a divided GPU's instances in its place. How much memory they have, the list does not tell.
func (d *smiDriver) addInstances(s *gpuSurvey, whole GPU, n int) {
	before := len(s.gpus)
	list, err := d.run("-L")
	if err != nil {
		list = ""
	}
	within := ""
	for row := range strings.Lines(list) {
		row = strings.TrimRight(row, "\r\n")
		if gpu := gpuLine.FindStringSubmatch(row); gpu != nil {
			within = gpu[1]
			continue
		}
		part := migLine.FindStringSubmatch(row)
		if part == nil || within != whole.UUID {
			continue
		}
		if slot, err := strconv.Atoi(part[2]); err == nil {
			s.addInstance(GPU{
				UUID: part[3], Model: whole.Model + " " + part[1], Parent: whole.UUID, PCIBusID: whole.PCIBusID,
				ComputeCapability: whole.ComputeCapability, PCIeGeneration: whole.PCIeGeneration, PCIeWidth: whole.PCIeWidth,
			}, whole, slot, n)
		}
	}
	if len(s.gpus) == before {
		s.gaps = append(s.gaps, gpuEmptyGap(whole))
	}
}

// inspect tells less than the library does: no settings, since they could not be put back, and not who draws.
func (d *smiDriver) inspect(uuids []string) []GPUState {
	rows, err := d.query("uuid,memory.used,memory.total,ecc.errors.uncorrected.volatile.total")
	tenants, known := d.computing()
	states := make([]GPUState, len(uuids))
	for i, uuid := range uuids {
		states[i].UUID = uuid
		if isInstance(uuid) || err != nil {
			continue
		}
		at := slices.IndexFunc(rows, func(row []string) bool { return row[0] == uuid && len(row) == 4 })
		if at < 0 {
			states[i].Lost = true
			continue
		}
		if used := parsed[int64](rows[at][1]); used != nil {
			states[i].MemoryUsed = new(*used * mib)
		}
		if total := parsed[int64](rows[at][2]); total != nil {
			states[i].Memory = new(*total * mib)
		}
		if n := parsed[int64](rows[at][3]); n != nil && *n >= 0 {
			states[i].ECCErrors = new(uint64(*n))
		}
		if known {
			states[i].Compute = append([]Process{}, tenants[uuid]...)
		}
	}
	return states
}

func (d *smiDriver) tenants() (all []Tenancy) {
	computing, _ := d.computing()
	for uuid, processes := range computing {
		all = append(all, Tenancy{UUID: uuid, Compute: processes})
	}
	return all
}

// computing are the processes that compute, by their GPU.
func (d *smiDriver) computing() (map[string][]Process, bool) {
	table, err := d.run("--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")
	if err != nil {
		return nil, false
	}
	all := map[string][]Process{}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, ",")
		if len(cells) != 3 {
			continue
		}
		uuid := cell(cells[0])
		if pid := parsed[int](cell(cells[1])); pid != nil {
			p := Process{PID: *pid}
			if used := parsed[int64](cell(cells[2])); used != nil {
				p.Memory = new(*used * mib)
			}
			all[uuid] = append(all[uuid], p)
		}
	}
	return all, true
}

func (d *smiDriver) restore(string, Settings) error { return nvmlFunctionNotFound }

// cudaVersion is in the heading of the long report; no column has it.
func (d *smiDriver) cudaVersion() *string {
	report, err := d.run("-q", "-d", "COMPUTE")
	if err != nil {
		return nil
	}
	for row := range strings.Lines(report) {
		if name, version, ok := strings.Cut(row, ":"); ok && strings.TrimSpace(name) == "CUDA Version" {
			return known(cell(version))
		}
	}
	return nil
}

func (d *smiDriver) read(uuids []string) (readings []gpuReading, answered bool) {
	d.refresh()
	readings = make([]gpuReading, len(uuids))
	if time.Since(d.latest.at) < smiAnswerServes {
		for i, uuid := range uuids {
			readings[i] = d.latest.readings[uuid]
		}
	}
	return readings, d.coming != nil || len(d.latest.readings) > 0
}

// refresh starts the program where its latest answer is old, and gives it a moment. What comes
// later is for the next reading.
func (d *smiDriver) refresh() {
	select {
	case d.latest = <-d.coming:
		d.coming = nil
	default:
	}
	if d.coming != nil || time.Since(d.latest.at) < smiAnswerKeeps {
		return
	}
	coming := make(chan smiAnswer, 1)
	go func() {
		readings := d.readAll()
		coming <- smiAnswer{readings, time.Now()}
	}()
	select {
	case d.latest = <-coming:
	case <-time.After(smiReadingWaits):
		d.coming = coming
	}
}

func (d *smiDriver) readAll() map[string]gpuReading {
	rows, err := d.query("uuid,temperature.gpu,utilization.gpu,power.draw,fan.speed,memory.used")
	if err != nil {
		return nil
	}
	all := map[string]gpuReading{}
	for _, row := range rows {
		if len(row) == 6 {
			all[row[0]] = gpuReading{
				tempC: valueOf[float64](row[1]), utilization: valueOf[float64](row[2]),
				powerW: valueOf[float64](row[3]), fanPercent: valueOf[float64](row[4]),
				memoryUsedMB: valueOf[int64](row[5]),
			}
		}
	}
	return all
}

// query gives a row for each GPU, of as many cells as columns unless that GPU is in trouble.
func (d *smiDriver) query(columns string) (rows [][]string, err error) {
	table, err := d.run("--query-gpu="+columns, "--format=csv,noheader,nounits")
	if err != nil {
		return nil, err
	}
	for row := range strings.Lines(table) {
		cells := strings.Split(row, ",")
		for i := range cells {
			cells[i] = cell(cells[i])
		}
		if !slices.Equal(cells, []string{""}) {
			rows = append(rows, cells)
		}
	}
	return rows, nil
}

// run gives the program nothing of our environment, which may hold secrets.
func (d *smiDriver) run(arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), smiAnswersWithin)
	defer cancel()
	program := exec.CommandContext(ctx, d.program, arguments...)
	program.Env = []string{"LC_ALL=C"}
	program.WaitDelay = time.Second
	hideWindow(program)
	output, err := program.Output()
	return string(output), err
}

// cell is empty where the program says that there is no value: [N/A], [Not Supported], [Unknown Error].
func cell(text string) string {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "[") || text == "N/A" {
		return ""
	}
	return text
}

// valueOf is not known for a text that is no number.
func valueOf[T int | int64 | float64](text string) value[T] {
	n, err := strconv.ParseFloat(text, 64)
	return value[T]{T(n), err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)}
}

func parsed[T int | int64 | float64](text string) *T {
	v := valueOf[T](text)
	return v.pointer()
}
