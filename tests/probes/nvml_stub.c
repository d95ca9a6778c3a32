/* A driver of our own making, with the functions and layouts that pynvml calls. All that it says is synthetic.

   STUB_FAILS=a,b         these questions get error 9, driver not loaded
   STUB_UNSUPPORTED=a,b   these get error 3, not supported
   STUB_DIES_AFTER=n      after n more answers every question gets error 15, GPU is lost, and so does the shutdown
   STUB_ENERGY=a,b,...    what the energy counter says, one after another, in millijoules; the last one stays
   STUB_REASONS=a,b,...   the same for the reasons of the clock, as numbers in any base of C
   STUB_CLOCKS=a,b,...    the same for the clock, in MHz
   STUB_PID=n             the process with 5 GiB + 3; default 42
   STUB_NO_MEMORY=1       its memory is not known
   stub_initialised() says how often NVML was initialised. */
#include <stdlib.h>
#include <string.h>

/* nvmlProcessInfo_v2_t, nvmlMemory_t and nvmlUtilization_t, as nvml.h lays them out */
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance, compute; } process;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned int gpu, memory; } utilisation;

static int initialised;

static int listed(const char *variable, const char *name) {
    const char *list = getenv(variable);
    size_t length = strlen(name);
    while (list && *list) {
        size_t item = strcspn(list, ",");
        if (item == length && !strncmp(list, name, length)) return 1;
        list += item + (list[item] == ',');
    }
    return 0;
}

/* the number at `place` of a list, or its last */
static unsigned long long number(const char *variable, int place, unsigned long long otherwise) {
    const char *list = getenv(variable), *comma;
    if (!list) return otherwise;
    while (place-- > 0 && (comma = strchr(list, ','))) list = comma + 1;
    return strtoull(list, NULL, 0);
}

static int answer(const char *name) {
    static int left = -1;
    if (left < 0) left = getenv("STUB_DIES_AFTER") ? atoi(getenv("STUB_DIES_AFTER")) : 1 << 30;
    if (left == 0) return 15;
    left--;
    if (listed("STUB_FAILS", name)) return 9;
    return listed("STUB_UNSUPPORTED", name) ? 3 : 0;
}

int stub_initialised(void) { return initialised; }
int nvmlInitWithFlags(unsigned int flags) { (void)flags; initialised++; return answer("init"); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return answer("shutdown"); }
const char *nvmlErrorString(int code) { (void)code; return "said by the stub"; }
int nvmlSystemGetDriverVersion(char *out, unsigned int n) { strncpy(out, "600.1", n); return 0; }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 13020; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **device) { *device = (void *)1; return i ? 6 : 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void *)1; return strcmp(uuid, "GPU-1234") ? 6 : 0; }
int nvmlDeviceGetName(void *d, char *out, unsigned int n) { (void)d; strncpy(out, "Stub 3000", n); return 0; }
int nvmlDeviceGetUUID(void *d, char *out, unsigned int n) { (void)d; strncpy(out, "GPU-1234", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { (void)d; *m = (memory){48ull << 30, 1, 2}; return 0; }

int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned int *n, process *out) {
    unsigned int room = *n;
    int code = answer("processes");
    (void)d;
    if (code) return code;
    *n = 2;
    if (room < 2) return 7;
    out[0] = (process){1, 111, 0, 0};
    out[1] = (process){(unsigned int)number("STUB_PID", 0, 42), getenv("STUB_NO_MEMORY") ? ~0ull : (5ull << 30) + 3, 0, 0};
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *millijoules) {
    static int asked;
    (void)d;
    *millijoules = number("STUB_ENERGY", asked++, 7);
    return answer("energy");
}

int nvmlDeviceGetClockInfo(void *d, unsigned int type, unsigned int *megahertz) {
    static int asked;
    (void)d;
    /* 1 is NVML_CLOCK_SM */
    *megahertz = type == 1 ? (unsigned int)number("STUB_CLOCKS", asked++, 1410) : 0;
    return type == 1 ? answer("clock") : 2;
}

int nvmlDeviceGetUtilizationRates(void *d, utilisation *rates) { (void)d; *rates = (utilisation){80, 30}; return answer("utilisation"); }

static int reasons(unsigned long long *found) {
    static int asked;
    *found = number("STUB_REASONS", asked++, 0);
    return answer("reasons");
}

#ifdef OLD_DRIVER
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *found) { (void)d; return reasons(found); }
#else
int nvmlDeviceGetCurrentClocksEventReasons(void *d, unsigned long long *found) { (void)d; return reasons(found); }
#endif
