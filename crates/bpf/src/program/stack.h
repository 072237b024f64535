/* Takes the stack of the current thread: its Python frames, and if asked for those of the kernel. */
#ifndef PROFILER_STACK_H
#define PROFILER_STACK_H

#include "ids.h"
#include "states.h"
#include "walk.h"

/* Set when the program is loaded. The verifier leaves out what is not asked for. */
const volatile u32 takes_kernel_frames = 0;

/* The epoch of the code objects of the runtime that the workspace's record is of. */
static ALWAYS_INLINE struct code_epoch *epoch_of_record(const struct workspace *workspace) {
    u32 index = layout_of_record(workspace)->epoch_index;
    return bpf_map_lookup_elem(&code_epochs, &index);
}

static ALWAYS_INLINE u32 walk_thread(struct workspace *workspace, enum way way) {
    struct stack_record *record = &workspace->record;
    const struct thread *thread = &workspace->cache.thread;
    if (id_source == IDS_BY_TYPES && record->thread == 0)
        return OUTCOME_CHANGED_THREAD;
    if (!workspace->cache.is_registered)
        return OUTCOME_UNKNOWN_THREAD;
    if (thread->count == 0)
        return OUTCOME_NO_PYTHON;
    u32 cpu = bpf_get_smp_processor_id();
    u8 *window = workspace->window.bytes;
    struct sent_codes *sent = bpf_map_lookup_elem(&sent_codes, &cpu);
    if (!sent)
        return OUTCOME_UNREADABLE;
    struct copied_range range = {.bytes = window};
    const struct thread_state *state = running_state(thread, record, window, &range);
    /* A state of a runtime without a layout is registered too early. */
    if (!(workspace->cache.process.runtimes >> (state->runtime & (MAX_RUNTIMES - 1)) & 1))
        return OUTCOME_UNKNOWN_THREAD;
    record->runtime = state->runtime;
    const struct layout *layout = layout_of_record(workspace);
    struct code_epoch *epoch = epoch_of_record(workspace);
    if (!epoch)
        return OUTCOME_UNREADABLE;
    u64 count_of_codes = state->code_count ? number_at(&range, state->code_count) : 0;
    u64 proof = proof_of_codes(layout, epoch, count_of_codes, record);
    u64 frame = 0;
    if (!copy_running_state(layout, record, state, &range, &frame))
        return OUTCOME_CHANGED_THREAD;
    struct walk walk = {
        .layout = layout,
        .record = record,
        .head = workspace->head,
        .window = window,
        .next = frame,
        .end = outermost_caller(layout, record),
        .proof = proof,
        .sent = sent,
        .group = record->process,
        .process = record->process,
        .outcome = OUTCOME_WHOLE,
    };
    if (way == BY_HELPER)
        bpf_loop(MAX_FRAMES / GROUP + 1, steps, &walk, 0);
    else
        walk_by_calls(&walk, &workspace->position);
    identify_rest(&walk);
    record->end = walk.next;
    return walk.outcome;
}

/* The size of a record as it is sent, in bytes. */
static ALWAYS_INLINE u64 record_size(const struct stack_record *record) {
    u64 frames = KEEP(record->frame_count);
    if (frames > MAX_FRAMES)
        frames = MAX_FRAMES;
    u64 size = __builtin_offsetof(struct stack_record, frames) + frames * sizeof(struct frame_copy);
    if (!takes_kernel_frames)
        return size;
    s64 kernel_frames = KEEP(record->kernel_frame_count);
    if (kernel_frames < 0)
        kernel_frames = 0;
    if (kernel_frames > MAX_KERNEL_FRAMES)
        kernel_frames = MAX_KERNEL_FRAMES;
    return size + kernel_frames * sizeof(u64);
}

/* Takes the kernel's frames, if they are asked for and there is a Python stack to put them on. */
static ALWAYS_INLINE void take_kernel_frames(void *context, struct stack_record *record) {
    record->kernel_frame_count = 0;
    if (!takes_kernel_frames || record->outcome > OUTCOME_TRUNCATED)
        return;
    u64 frames = KEEP(record->frame_count);
    if (frames > MAX_FRAMES)
        frames = MAX_FRAMES;
    long size = bpf_get_stack(context, &record->frames[frames], MAX_KERNEL_FRAMES * sizeof(u64), 0);
    record->kernel_frame_count = size < 0 ? -1 : (s16)(size / sizeof(u64));
}

/* Takes the stack of the current thread, which is in the workspace's cache (`recognise`), at the instant `now`. */
static ALWAYS_INLINE void take_stack(void *context, struct workspace *workspace, u32 kind, u64 now, enum way way) {
    struct stack_record *record = &workspace->record;
    record->kind = kind;
    record->time = now;
    record->process = workspace->cache.ids >> 32;
    record->thread = (u32)workspace->cache.ids;
    record->thread_state = 0;
    record->frame_count = 0;
    record->end = 0;
    record->ran = 0;
    record->proof = 0;
    record->holds_gil = 0;
    record->runtime = 0;
    record->outcome = walk_thread(workspace, way);
    take_kernel_frames(context, record);
    record->took = (u32)(bpf_ktime_get_ns() - now);
}

#endif
