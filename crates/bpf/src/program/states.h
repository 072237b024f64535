/* Thread states: the registration of the current thread, which of its thread states runs, and who holds the GIL. */
#ifndef PROFILER_STATES_H
#define PROFILER_STATES_H

#include "maps.h"
#include "memory.h"
#include "workspace.h"

/* Copies what is used of a process. The second runtime takes two more lines of the CPU's caches. */
static ALWAYS_INLINE void copy_process(struct process *copy, const struct process *process) {
    copy->runtimes = process->runtimes;
    copy->layouts[0] = process->layouts[0];
    if (process->runtimes > 1)
        copy->layouts[1] = process->layouts[1];
}

/* Brings the workspace's cache up to date for the thread with these ids; returns whether its process is registered. */
static ALWAYS_INLINE int recognise(struct workspace *workspace, u64 ids) {
    struct thread_cache *cache = &workspace->cache;
    u32 zero = 0;
    const struct settings *current = bpf_map_lookup_elem(&settings, &zero);
    if (!current || !ids)
        return 0;
    /* Before the registrations themselves: user space writes it last. */
    u64 generation = *(volatile u64 *)&current->generation;
    if (cache->ids == ids && cache->generation == generation)
        return 1;
    u32 pid = ids >> 32;
    u32 tid = (u32)ids;
    const struct process *process = bpf_map_lookup_elem(&processes, &pid);
    if (!process)
        return 0;
    const struct thread *thread = bpf_map_lookup_elem(&threads, &tid);
    cache->ids = ids;
    cache->generation = generation;
    copy_process(&cache->process, process);
    cache->is_registered = thread != 0;
    if (thread)
        cache->thread = *thread;
    return 1;
}

/* Copies the fields of a thread state's GIL, and the count of code objects if it is near. */
static ALWAYS_INLINE void copy_gil(const struct thread_state *state, u8 *window, struct copied_range *range) {
    int is_first = state->gil_last_holder < state->gil_locked;
    u64 start = is_first ? state->gil_last_holder : state->gil_locked;
    u64 last = KEEP((is_first ? state->gil_locked : state->gil_last_holder) - start);
    u64 count = state->code_count - start;
    if (count > last && count <= GIL_BYTES - 8)
        last = count;
    range->length = 0;
    if (last > GIL_BYTES - 8 || bpf_probe_read_user(window, last + 8, at(start)) != 0)
        return;
    range->start = start;
    range->length = last + 1;
}

/* 3.6 creates the GIL with the second thread: until then `locked` is -1, and the only thread counts as its holder. */
static ALWAYS_INLINE int holds_gil(const struct thread_state *state, const struct copied_range *range) {
    u32 locked = (u32)number_at(range, state->gil_locked);
    return locked == ~0u || (locked == 1 && number_at(range, state->gil_last_holder) == state->state);
}

/* The thread state in which the thread runs: of several the one that holds its GIL, else the youngest. */
static ALWAYS_INLINE const struct thread_state *running_state(const struct thread *thread, struct stack_record *record,
                                                              u8 *window, struct copied_range *range) {
#pragma unroll
    for (u32 i = 0; i < MAX_STATES; i++) {
        const struct thread_state *state = &thread->states[i];
        if (i >= thread->count)
            break;
        if (!state->gil_locked)
            continue;
        copy_gil(state, window, range);
        if (holds_gil(state, range)) {
            record->holds_gil = 1;
            return state;
        }
    }
    return &thread->states[0];
}

/* The innermost frame of the thread state that was copied. */
static ALWAYS_INLINE u64 innermost_frame(const struct layout *layout, const struct stack_record *record) {
    u64 frame = field(record->thread_copy, layout->thread_frame, THREAD_BYTES);
    if (layout->cframe_current_frame != NO_OFFSET && frame)
        frame = read_pointer(frame + layout->cframe_current_frame);
    return frame;
}

/* What the outermost frame has as its caller. */
static ALWAYS_INLINE u64 outermost_caller(const struct layout *layout, const struct stack_record *record) {
    return layout->thread_base_frame == NO_OFFSET
               ? 0
               : field(record->thread_copy, layout->thread_base_frame, THREAD_BYTES);
}

/* Copies a thread state and finds its innermost frame. Returns whether it is a state of the current thread, in the same
 * interpreter as the registered one. */
static ALWAYS_INLINE int copy_state(const struct layout *layout, struct stack_record *record,
                                    const struct thread_state *registered, u64 address, u64 *frame) {
    u32 size = layout->thread_size;
    if (size > THREAD_BYTES)
        size = THREAD_BYTES;
    record->thread_state = address;
    /* This fails in a process that ends: its memory goes before its last thread does. */
    if (bpf_probe_read_user(record->thread_copy, size, at(address)) != 0)
        return 0;
    if (field(record->thread_copy, layout->thread_interpreter, THREAD_BYTES) != registered->interpreter ||
        field(record->thread_copy, layout->thread_id, THREAD_BYTES) != registered->thread_id)
        return 0;
    *frame = innermost_frame(layout, record);
    return 1;
}

/* Copies the thread state in which the thread runs and finds its innermost frame; returns whether there is one.
 *
 * A thread of C code that calls Python (PyGILState_Ensure) has a new thread state in each call, mostly but not always at the
 * address of the previous one. A freed state may still look like one that runs no frame. Its own state is then the one that
 * holds the GIL, or if the call has released the GIL, one of the youngest. */
static ALWAYS_INLINE int copy_running_state(const struct layout *layout, struct stack_record *record,
                                            const struct thread_state *registered, const struct copied_range *range,
                                            u64 *frame) {
    if (copy_state(layout, record, registered, registered->state, frame) && *frame &&
        *frame != outermost_caller(layout, record))
        return 1;
    if (registered->gil_locked && (u32)number_at(range, registered->gil_locked) == 1) {
        u64 holder = number_at(range, registered->gil_last_holder);
        if (holder != registered->state && copy_state(layout, record, registered, holder, frame)) {
            record->holds_gil = 1;
            return 1;
        }
    }
    u64 next = registered->first_state ? read_pointer(registered->first_state) : 0;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < SEARCHED_STATES && next; i++) {
        if (next != registered->state && copy_state(layout, record, registered, next, frame))
            return 1;
        next = field(record->thread_copy, layout->thread_next, THREAD_BYTES);
    }
    return copy_state(layout, record, registered, registered->state, frame);
}

#endif
