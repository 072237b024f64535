/* Threads without Python: no record is sent of their ticks; they are counted by thread. */
#ifndef PROFILER_NATIVE_H
#define PROFILER_NATIVE_H

#include "maps.h"
#include "ticks.h"
#include "workspace.h"

/* By process << 32 | thread. Of more threads, those that ticked last have an entry. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
    MAP_NUMBER(max_entries, MAX_NATIVE_THREADS);
    MAP_TYPE(key, u64);
    MAP_TYPE(value, struct native_ticks);
} native_ticks SECTION(".maps");

/* Whether the thread in the cache runs no Python, as far as user space knows: its process is registered without a layout, or it
 * is registered without a thread state. */
static ALWAYS_INLINE int is_native(const struct thread_cache *cache) {
    return !cache->process.runtimes || (cache->is_registered && !cache->thread.count);
}

/* Counts a tick of the thread with these ids at `now`. Only the CPU on which the thread runs writes to its entry. But the map may
 * give the entry to another thread at any time, as user space may remove it, so additions are atomic: no addition of
 * another CPU is lost.
 *
 * The totals come last. User space reads them first: each tick in them is in an entry by then, unless the map had no room
 * for that or has dropped it since. */
static ALWAYS_INLINE void count_native(u64 ids, const struct stack_record *record, u64 now) {
    u32 zero = 0;
    const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
    if (!set || (set->end && now > set->end))
        return;
    struct tick_share share = share_of_tick(record);
    struct native_ticks *counted = bpf_map_lookup_elem(&native_ticks, &ids);
    if (counted) {
        __sync_fetch_and_add(&counted->ticks, 1);
        __sync_fetch_and_add(&counted->weight, share.weight);
        __sync_fetch_and_add(&counted->late, share.late);
        __sync_fetch_and_add(&counted->rested, record->rested);
        *(volatile u64 *)&counted->last = now;
    } else {
        struct native_ticks first = {
            .first = now,
            .last = now,
            .ticks = 1,
            .weight = share.weight,
            .late = share.late,
            .rested = record->rested,
        };
        bpf_map_update_elem(&native_ticks, &ids, &first, BPF_ANY);
    }
    count(COUNTER_NATIVE_TICKS, 1);
    count(COUNTER_NATIVE_WEIGHT, share.weight);
}

#endif
