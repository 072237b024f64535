/* What a walk along the frames of a thread works with. */
#ifndef PROFILER_WORKSPACE_H
#define PROFILER_WORKSPACE_H

#include "records.h"

/* A range of memory with frames in it. From CPython 3.11 on, the callers of a frame mostly lie right before it. */
struct window {
    u8 bytes[WINDOW_BYTES + FRAME_BYTES];
};

/* The position of a walk, for kernels whose programs have no `bpf_loop`: see `step_group`. */
struct walk_position {
    u64 window_start;
    u64 window_last;
    u64 next;
    u64 end;
    u64 proof;
    u64 group;
    u64 outcome;
};

/* The thread that a CPU sampled last, with its registration and that of its process as of `generation`. The next sample is
 * mostly of the same thread, and to look both up takes some 0.4 us of cache and TLB misses. */
struct thread_cache {
    /* Process << 32 | thread; 0 for none. */
    u64 ids;
    u64 generation;
    u64 is_registered;
    struct thread thread;
    /* Last, as the second of its layouts is rarely used. */
    struct process process;
};

/* The working memory of a walk, which is too large for the stack. Each CPU has one: no event interrupts another on the same
 * CPU. What most stacks need of it lies on one page, and so takes one TLB entry. */
struct workspace {
    struct thread_cache cache;
    struct window window;
    struct walk_position position;
    /* The bytes that identify a code object. They are not on the stack: before Linux 6.13, a program and all that it calls
     * have 512 bytes of stack. */
    u64 head[HEAD_BYTES / 8];
    struct stack_record record;
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct workspace);
} workspaces SECTION(".maps");

/* The layout of the runtime that the workspace's record is of. */
static ALWAYS_INLINE const struct layout *layout_of_record(const struct workspace *workspace) {
    u64 runtime = KEEP(workspace->record.runtime) & (MAX_RUNTIMES - 1);
    return &workspace->cache.process.layouts[runtime];
}

/* Marks of the groups of frames whose hashes this CPU has sent, mixed with the proof under which it sent them, the youngest of
 * a bucket first. To look up each frame's code object in `codes` takes two misses each, of the CPU's caches and of its TLB: 7 us
 * for 20 frames. Callers and callees mostly stay the same, so one mark stands for a group of frames, and all marks fit 8 pages.
 *
 * Two groups can have the same mark, and what was sent may not have arrived: user space knows under which proof it received
 * each hash, and rejects others. */
struct sent_codes {
    u32 marks[SENT_BUCKETS][SENT_WAYS];
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct sent_codes);
} sent_codes SECTION(".maps");

/* A walk in progress. */
struct walk {
    const struct layout *layout;
    struct stack_record *record;
    u64 *head;
    /* The range copied last: its start, and the offset of the last frame that lies in it as a whole. */
    u8 *window;
    u64 window_start;
    u64 window_last;
    u64 next;
    u64 end;
    /* Code objects met under the same proof need not be read again, see `proof_of_codes`. */
    u64 proof;
    struct sent_codes *sent;
    /* A hash of the code objects of the frames that are not identified yet. */
    u64 group;
    u32 process;
    u32 outcome;
};

#endif
