/* The little of the kernel's interface that the program uses: types, map definitions, helpers by their numbers
 * (include/uapi/linux/bpf.h). Written out, so that building needs clang and nothing else. */
#ifndef PROFILER_BPF_H
#define PROFILER_BPF_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef short s16;
typedef int s32;
typedef long long s64;

#define SECTION(name) __attribute__((section(name), used))
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* A value that the compiler knows nothing of, so that a check of it stays where it was written. */
#define KEEP(value)                                                                                                    \
    ({                                                                                                                 \
        u64 kept = (value);                                                                                            \
        asm volatile("" : "+r"(kept));                                                                                \
        kept;                                                                                                          \
    })

/* Maps described by BTF: a structure of pointers whose types carry the numbers. */
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_LRU_HASH = 9, BPF_MAP_TYPE_RINGBUF = 27 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { BPF_ANY = 0, BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static void *(*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_perf_prog_read_value)(void *context, void *value, u32 size) = (void *)56;
static long (*bpf_get_stack)(void *context, void *into, u32 size, u64 flags) = (void *)67;
static long (*bpf_probe_read_user)(void *into, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *into, u32 size, const void *from) = (void *)113;
static long (*bpf_get_ns_current_pid_tgid)(u64 device, u64 inode, void *into, u32 size) = (void *)120;
static long (*bpf_ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*bpf_ringbuf_query)(void *ring, u64 flags) = (void *)134;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static void *(*bpf_task_pt_regs)(void *task) = (void *)175;
static long (*bpf_loop)(u32 times, void *callback, void *context, u64 flags) = (void *)181;

/* What a program of a perf event is given (`bpf_perf_event_data`; include/uapi/linux/bpf_perf_event.h). */
struct perf_event_context {
    u64 registers[21]; /* x86-64 */
    u64 sample_period;
    u64 address;
};

/* What `bpf_perf_prog_read_value` returns of the event that fired. */
struct perf_event_value {
    u64 counter;
    u64 enabled;
    u64 running;
};

#endif
