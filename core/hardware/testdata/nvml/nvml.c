/*
 * Stands in for NVIDIA's management library on machines without a GPU, so that the tests load,
 * link and call a shared library as they would the real one.
 *
 * NVML_SHIM names a directory, looked at anew on every call:
 *   gpus   one GPU a line, fields separated by '|':
 *          uuid|name|total MiB|used MiB|load %|°C|W|W limit|fan %|capability|bus id|PCIe gen|PCIe width
 *          a number of -1 means "not supported"; a GPU without its line has fallen off the bus;
 *          one of the name "lost" has too, but is still counted
 *   init   the code nvmlInit returns, if there is such a file
 *   hang   while there is such a file, readings do not return
 *   open   written here: how many sessions are open
 *   mig    one instance a line: uuid of its GPU|slot|uuid|name|total MiB|used MiB
 *          a GPU that has a line here is divided; slot -1 stands for no instance
 *   processes  one a line: uuid of GPU or instance|C or G|pid|MiB; -1 MiB means "cannot tell"
 *   settings   one a line: uuid|power_limit, compute_mode, persistence, graphics_clock, memory_clock, ecc or
 *          ecc_errors|number; written anew when one is set, unless there is a file named "locked"
 *
 * Compiled with OLD defined, it lacks what old versions of the library lack.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
enum { MOST = 64, TEXT = 96 };

struct gpu {
	char uuid[TEXT], name[TEXT], capability[TEXT], bus[TEXT];
	long long total, used, load, celsius, watts, limit, fan, generation, width;
};

/* A handle is a slot that remembers which GPU it was made for. */
static char slots[MOST][TEXT];
static int starts;

static FILE *entry(const char *name, const char *mode) {
	char path[1024];
	const char *directory = getenv("NVML_SHIM");
	if (!directory) return NULL;
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return fopen(path, mode);
}

static int is_there(const char *name) {
	FILE *f = entry(name, "r");
	if (f) fclose(f);
	return f != NULL;
}

static int all(struct gpu *gpus) {
	char line[1024];
	int n = 0;
	FILE *f = entry("gpus", "r");
	if (!f) return 0;
	while (n < MOST && fgets(line, sizeof line, f)) {
		struct gpu *g = &gpus[n];
		n += sscanf(line, "%95[^|]|%95[^|]|%lld|%lld|%lld|%lld|%lld|%lld|%lld|%95[^|]|%95[^|]|%lld|%lld",
			g->uuid, g->name, &g->total, &g->used, &g->load, &g->celsius, &g->watts, &g->limit, &g->fan,
			g->capability, g->bus, &g->generation, &g->width) == 13;
	}
	fclose(f);
	return n;
}

/* An instance is a GPU with what its line says. */
static int instance(const char *uuid, const char *parent, int slot, struct gpu *found) {
	char line[1024], of[TEXT], own[TEXT], name[TEXT];
	int at, known = NOT_FOUND;
	long long total, used;
	FILE *f = entry("mig", "r");
	if (!f) return NOT_FOUND;
	while (known && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%95[^|]|%d|%95[^|]|%95[^|]|%lld|%lld", of, &at, own, name, &total, &used) != 6) continue;
		if (uuid ? strcmp(own, uuid) : strcmp(of, parent) || at != slot) continue;
		memset(found, 0, sizeof *found);
		strcpy(found->uuid, own);
		strcpy(found->name, name);
		strcpy(found->bus, of); /* whose part it is */
		found->total = total;
		found->used = used;
		found->load = found->celsius = found->watts = found->limit = found->fan = -1;
		found->generation = found->width = -1;
		known = OK;
	}
	fclose(f);
	return known;
}

static int find(const char *slot, struct gpu *found) {
	struct gpu gpus[MOST];
	int n = all(gpus);
	while (is_there("hang")) usleep(1000);
	if (!strncmp(slot, "MIG-", 4)) return instance(slot, NULL, 0, found) ? LOST : OK;
	for (int i = 0; i < n; i++)
		if (!strcmp(gpus[i].uuid, slot)) {
			*found = gpus[i];
			return OK;
		}
	return LOST;
}

static int slot_of(const char *uuid, char **handle) {
	for (int i = 0; i < MOST; i++) {
		if (!slots[i][0]) strcpy(slots[i], uuid);
		if (!strcmp(slots[i], uuid)) {
			*handle = slots[i];
			return OK;
		}
	}
	return NOT_FOUND;
}

static int say(const char *text, char *buffer, unsigned length) {
	if (strlen(text) >= length) return TOO_SMALL;
	strcpy(buffer, text);
	return OK;
}

static void started(int more) {
	FILE *f = entry("open", "w");
	starts += more;
	if (!f) return;
	fprintf(f, "%d", starts);
	fclose(f);
}

int nvmlInit_v2(void) {
	int code = OK;
	FILE *f = entry("init", "r");
	if (f) {
		if (fscanf(f, "%d", &code) != 1) code = UNINITIALIZED;
		fclose(f);
	}
	if (code == OK) started(1);
	return code;
}

int nvmlShutdown(void) {
	if (!starts) return UNINITIALIZED;
	started(-1);
	return OK;
}

int nvmlSystemGetDriverVersion(char *buffer, unsigned length) { return say("580.95.05", buffer, length); }

int nvmlSystemGetCudaDriverVersion(int *version) {
	*version = 12080;
	return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
	struct gpu gpus[MOST];
	if (!starts) return UNINITIALIZED;
	*count = all(gpus);
	return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned i, char **handle) {
	struct gpu gpus[MOST];
	if (i >= (unsigned)all(gpus)) return INVALID;
	if (!strcmp(gpus[i].name, "lost")) return LOST;
	return slot_of(gpus[i].uuid, handle);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, char **handle) {
	struct gpu g;
	return find(uuid, &g) == OK ? slot_of(uuid, handle) : NOT_FOUND;
}

int nvmlDeviceGetUUID(char *handle, char *buffer, unsigned length) {
	struct gpu g;
	int code = find(handle, &g);
	return code ? code : say(g.uuid, buffer, length);
}

int nvmlDeviceGetName(char *handle, char *buffer, unsigned length) {
	struct gpu g;
	int code = find(handle, &g);
	return code ? code : say(g.name, buffer, length);
}

int nvmlDeviceGetMemoryInfo(char *handle, unsigned long long *memory) {
	struct gpu g;
	int code = find(handle, &g);
	if (code) return code;
	memory[0] = g.total << 20;
	memory[1] = (g.total - g.used) << 20;
	memory[2] = g.used << 20;
	return OK;
}

int nvmlDeviceGetUtilizationRates(char *handle, unsigned *rates) {
	struct gpu g;
	int code = find(handle, &g);
	if (code) return code;
	if (g.load < 0) return UNSUPPORTED;
	rates[0] = g.load;
	rates[1] = 0;
	return OK;
}

static int number(char *handle, size_t offset, unsigned times, unsigned *value) {
	struct gpu g;
	int code = find(handle, &g);
	if (code) return code;
	long long n = *(long long *)((char *)&g + offset);
	if (n < 0) return UNSUPPORTED;
	*value = n * times;
	return OK;
}

#define NUMBER(function, field, times) \
	int function(char *handle, unsigned *value) { return number(handle, offsetof(struct gpu, field), times, value); }

NUMBER(nvmlDeviceGetPowerUsage, watts, 1000)

/* setting is a number of the file "settings", or what is said without it. */
static int setting(char *handle, const char *name, long long otherwise, unsigned long long *value) {
	char line[1024], of[TEXT], what[TEXT];
	long long n;
	struct gpu g;
	int code = find(handle, &g);
	FILE *f;
	if (code) return code;
	if ((f = entry("settings", "r"))) {
		while (fgets(line, sizeof line, f))
			if (sscanf(line, "%95[^|]|%95[^|]|%lld", of, what, &n) == 3 && !strcmp(of, handle) && !strcmp(what, name))
				otherwise = n;
		fclose(f);
	}
	if (otherwise < 0) return UNSUPPORTED;
	*value = otherwise;
	return OK;
}

static int number_setting(char *handle, const char *name, long long otherwise, unsigned *value) {
	unsigned long long n;
	int code = setting(handle, name, otherwise, &n);
	if (!code) *value = n;
	return code;
}

int nvmlDeviceGetPowerManagementLimit(char *handle, unsigned *value) {
	struct gpu g;
	int code = find(handle, &g);
	return code ? code : number_setting(handle, "power_limit", g.limit < 0 ? -1 : g.limit * 1000, value);
}
#ifndef OLD
NUMBER(nvmlDeviceGetFanSpeed, fan, 1)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, generation, 1)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, width, 1)
#endif

int nvmlDeviceGetTemperature(char *handle, int sensor, unsigned *value) {
	if (sensor != 0) return INVALID;
	return number(handle, offsetof(struct gpu, celsius), 1, value);
}

int nvmlDeviceGetCudaComputeCapability(char *handle, int *major, int *minor) {
	struct gpu g;
	int code = find(handle, &g);
	if (code) return code;
	return sscanf(g.capability, "%d.%d", major, minor) == 2 ? OK : UNSUPPORTED;
}

struct pci {
	char legacy[16];
	unsigned domain, bus, device, id, subsystem;
	char bus_id[32];
};

int nvmlDeviceGetPciInfo_v3(char *handle, struct pci *pci) {
	struct gpu g;
	int code = find(handle, &g);
	if (code) return code;
	memset(pci, 0, sizeof *pci);
	return say(g.bus, pci->bus_id, sizeof pci->bus_id);
}

#ifndef OLD
int nvmlDeviceGetComputeMode(char *handle, unsigned *value) { return number_setting(handle, "compute_mode", -1, value); }
int nvmlDeviceGetPersistenceMode(char *handle, unsigned *value) { return number_setting(handle, "persistence", -1, value); }

int nvmlDeviceGetApplicationsClock(char *handle, int kind, unsigned *value) {
	return number_setting(handle, kind == 0 ? "graphics_clock" : "memory_clock", -1, value);
}

int nvmlDeviceGetEccMode(char *handle, unsigned *current, unsigned *pending) {
	int code = number_setting(handle, "ecc", -1, current);
	if (!code) *pending = *current;
	return code;
}

int nvmlDeviceGetTotalEccErrors(char *handle, int kind, int counter, unsigned long long *value) {
	return kind == 1 && counter == 0 ? setting(handle, "ecc_errors", -1, value) : INVALID;
}

/* The last line of a name counts. */
static int set(char *handle, const char *name, unsigned value) {
	FILE *f;
	if (is_there("locked")) return 4; /* no permission */
	if (!(f = entry("settings", "a"))) return 999;
	fprintf(f, "%s|%s|%u\n", handle, name, value);
	fclose(f);
	return OK;
}

int nvmlDeviceSetPowerManagementLimit(char *handle, unsigned value) { return set(handle, "power_limit", value); }
int nvmlDeviceSetComputeMode(char *handle, unsigned value) { return set(handle, "compute_mode", value); }
int nvmlDeviceSetPersistenceMode(char *handle, unsigned value) { return set(handle, "persistence", value); }

int nvmlDeviceSetApplicationsClocks(char *handle, unsigned memory, unsigned graphics) {
	int code = set(handle, "memory_clock", memory);
	return code ? code : set(handle, "graphics_clock", graphics);
}

static int is_divided(const char *uuid) {
	char line[1024];
	int divided = 0;
	FILE *f = entry("mig", "r");
	if (!f) return 0;
	while (!divided && fgets(line, sizeof line, f))
		divided = !strncmp(line, uuid, strlen(uuid)) && line[strlen(uuid)] == '|';
	fclose(f);
	return divided;
}

int nvmlDeviceGetMigMode(char *handle, unsigned *current, unsigned *pending) {
	struct gpu g;
	int code = find(handle, &g);
	if (code) return code;
	*current = *pending = is_divided(handle);
	return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(char *handle, unsigned *count) {
	*count = is_divided(handle) ? 7 : 0;
	return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(char *handle, unsigned slot, char **part) {
	struct gpu g;
	if (instance(NULL, handle, slot, &g)) return NOT_FOUND;
	return slot_of(g.uuid, part);
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(char *part, char **handle) {
	struct gpu g;
	if (instance(part, NULL, 0, &g)) return NOT_FOUND;
	return slot_of(g.bus, handle);
}

struct process {
	unsigned pid;
	unsigned long long memory;
	unsigned instance, compute;
};

static int processes(char *handle, char kind, unsigned *count, struct process *list) {
	char line[1024], of[TEXT], is;
	unsigned most = *count, pid;
	long long mib;
	struct gpu g;
	int code = find(handle, &g);
	FILE *f;
	if (code) return code;
	*count = 0;
	if (!(f = entry("processes", "r"))) return OK;
	while (fgets(line, sizeof line, f)) {
		if (sscanf(line, "%95[^|]|%c|%u|%lld", of, &is, &pid, &mib) != 4 || strcmp(of, handle) || is != kind) continue;
		if (*count < most) list[*count] = (struct process){pid, mib < 0 ? ~0ULL : (unsigned long long)mib << 20, 0, 0};
		++*count;
	}
	fclose(f);
	return *count > most ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(char *handle, unsigned *count, struct process *list) {
	return processes(handle, 'C', count, list);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(char *handle, unsigned *count, struct process *list) {
	return processes(handle, 'G', count, list);
}
#endif
