/* The maps by which user space registers processes and threads, and those by which the program reports: the ring, and the
 * counts of what found no room in it. */
#ifndef PROFILER_MAPS_H
#define PROFILER_MAPS_H

#include "records.h"

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_PROCESSES);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct process);
} processes SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct thread);
} threads SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, 1);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct settings);
} settings SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_PROCESSES * MAX_RUNTIMES);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct code_epoch);
} code_epochs SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, COUNTERS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} counters SECTION(".maps");

/* By process << 32 | thread. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
    MAP_NUMBER(max_entries, MAX_LOSING_THREADS);
    MAP_TYPE(key, u64);
    MAP_TYPE(value, struct thread_loss);
} losses SECTION(".maps");

/* 4 MiB; user space may ask for another size. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_RINGBUF);
    MAP_NUMBER(max_entries, 4 * 1024 * 1024);
} ring SECTION(".maps");

static ALWAYS_INLINE void count(u32 counter, u64 amount) {
    u64 *value = bpf_map_lookup_elem(&counters, &counter);
    if (value)
        __sync_fetch_and_add(value, amount);
}

/* Counts a record of a thread that found no room in the ring. A sample stands for `weight`; for other records it is 0. */
static ALWAYS_INLINE void count_loss(u32 process, u32 thread, u64 weight) {
    count(COUNTER_RING_FULL, 1);
    u64 ids = (u64)process << 32 | thread;
    struct thread_loss *loss = bpf_map_lookup_elem(&losses, &ids);
    if (loss) {
        __sync_fetch_and_add(&loss->count, 1);
        __sync_fetch_and_add(&loss->weight, weight);
        return;
    }
    struct thread_loss first = {.count = 1, .weight = weight};
    bpf_map_update_elem(&losses, &ids, &first, BPF_ANY);
}

/* Whether to wake user space after a record: once a good part of the ring is full, and at once if a thread is to be
 * registered. Otherwise user space reads the ring at its own intervals. */
static ALWAYS_INLINE u64 wakeup(u32 outcome) {
    if (outcome == OUTCOME_UNKNOWN_THREAD)
        return BPF_RB_FORCE_WAKEUP;
    return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > 1024 * 1024 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

#endif
