/* Off-CPU intervals: the structures and maps in which the scheduler's programs keep them, and what is sent of them. */
#ifndef PROFILER_INTERVALS_H
#define PROFILER_INTERVALS_H

#include "maps.h"
#include "open_files.h"

/* The most frames, those of the kernel included, of a stack that is kept. A larger one is sent when its
 * thread leaves. */
#define KEPT_FRAMES 64
#define STACK_HEAD __builtin_offsetof(struct stack_record, frames)
#define KEPT_BYTES (STACK_HEAD + KEPT_FRAMES * sizeof(struct frame_copy))
/* Sums of short off-CPU intervals, by thread and by what was waited for. */
#define MAX_SUMS 16384
#define MAX_UNREGISTERED 4096
/* The shortest time, in nanoseconds, between two reports of a thread that is not registered. */
#define UNREGISTERED_GAP 100000000ull

enum off_cpu_kind { RECORD_INTERVAL = 3, RECORD_DEEP_STACK = 4, RECORD_UNREGISTERED = 5 };

enum interval_flags {
    /* The thread was preempted: it left its CPU runnable. */
    INTERVAL_RUNNABLE = 1,
    /* The stack was sent before, as it is deep. */
    INTERVAL_DEEP = 2,
    /* The thread was registered while off the CPU: its stack was never taken here. */
    INTERVAL_FROM_START = 4,
    /* The thread has ended. */
    INTERVAL_END = 8,
    /* The thread came back and left again in between; how often and for how long is not known. */
    INTERVAL_SEVERAL = 16,
    /* The stack is deep and found no room in the ring. Of a sum: its intervals found no room in the ring. */
    INTERVAL_STACK_LOST = 32,
};

/* A thread and its last off-CPU interval. It is also the record that is sent, without the unused end of the stack. */
struct interval {
    u32 kind;
    u32 process;
    u32 thread;
    u32 flags;
    /* When the thread left its CPU, 0 while it is on one; when it was woken, 0 if it was not; when it came back. */
    u64 left;
    u64 woken;
    u64 back;
    /* The system call in which it left, -1 for none, and its first arguments. */
    s64 call;
    u64 arguments[3];
    /* How often the scheduler had put the thread on a CPU when it left. */
    u64 arrivals;
    /* The CPU time from the thread's registration until it came back last. */
    u64 ran;
    /* The CPU time that the scheduler had counted of the thread when it left. */
    u64 executed;
    /* The scheduler's state of the thread. */
    u32 state;
    u32 stack_bytes;
    /* Of a system call that waits for a descriptor: what that was open on when the thread left. */
    struct open_file file;
    /* The total length of the intervals of which nothing else is kept: they found no room in the ring, nor in a sum. */
    u64 unsent;
    u8 stack[KEPT_BYTES];
};

/* The flags of a sum of intervals that found no room in the ring also have the scheduler's state of the thread. */
#define SUM_STATE_SHIFT 8
#define SUM_STATE_BITS 0xff

struct sum_key {
    u32 thread;
    u32 flags;
    s64 call;
    u64 argument;
    struct open_file file;
};

struct sum {
    u64 intervals;
    /* Until the thread was woken, and from then on. */
    u64 waited;
    u64 queued;
};

/* Up to when user space has reported the interval that began at `left` and is not over yet. */
struct reported {
    u64 left;
    u64 until;
};

struct unregistered {
    u32 kind;
    u32 process;
    u32 thread;
    u32 padding;
};

struct off_cpu_settings {
    /* Off-CPU intervals shorter than this are summed. */
    u64 least;
    /* By how much the scheduler's clock is behind ours, as of the last return; 0 before the first one. */
    u64 behind;
    /* 1: the programs do nothing any more. */
    u64 is_over;
};

/* The watched threads: user space adds them, their end removes them. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct interval);
} intervals SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_SUMS);
    MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, struct sum_key);
    MAP_TYPE(value, struct sum);
} sums SECTION(".maps");

/* Of threads off the CPU. User space adds an entry; who uses it removes it. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct reported);
} reported_until SECTION(".maps");

/* Threads that are not registered, and when they were reported last. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
    MAP_NUMBER(max_entries, MAX_UNREGISTERED);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} unregistered_threads SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, 1);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct off_cpu_settings);
} off_cpu_settings SECTION(".maps");

/* Reports a thread that is not registered. */
static ALWAYS_INLINE void report_unregistered(u32 process, u32 thread, u64 now) {
    u64 *reported = bpf_map_lookup_elem(&unregistered_threads, &thread);
    if (reported && now - *reported < UNREGISTERED_GAP)
        return;
    struct unregistered record = {.kind = RECORD_UNREGISTERED, .process = process, .thread = thread};
    if (bpf_ringbuf_output(&ring, &record, sizeof record, BPF_RB_NO_WAKEUP) == 0)
        bpf_map_update_elem(&unregistered_threads, &thread, &now, BPF_ANY);
}

/* Sends the interval of a thread; returns whether the ring had room for it. */
static ALWAYS_INLINE int send_interval(const struct interval *interval, u64 wakeup_flags) {
    u64 stack_bytes = KEEP(interval->stack_bytes);
    if (stack_bytes > KEPT_BYTES)
        stack_bytes = KEPT_BYTES;
    u64 size = __builtin_offsetof(struct interval, stack) + stack_bytes;
    if (bpf_ringbuf_output(&ring, (void *)interval, size, wakeup_flags) == 0)
        return 1;
    count_loss(interval->process, interval->thread, 0);
    return 0;
}

/* The entry of a watched thread; null if it is not watched. A thread whose end found no room in the ring is not watched any more, and
 * another one may have its id. */
static ALWAYS_INLINE struct interval *watched(u32 thread) {
    struct interval *interval = bpf_map_lookup_elem(&intervals, &thread);
    return interval && !(interval->flags & INTERVAL_END) ? interval : 0;
}

#endif
