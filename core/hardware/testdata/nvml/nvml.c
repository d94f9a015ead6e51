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
 *
 * Compiled with OLD defined, it lacks what old versions of the library lack.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
enum { MOST = 16, TEXT = 96 };

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

static int find(const char *slot, struct gpu *found) {
	struct gpu gpus[MOST];
	int n = all(gpus);
	while (is_there("hang")) usleep(1000);
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
NUMBER(nvmlDeviceGetPowerManagementLimit, limit, 1000)
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
