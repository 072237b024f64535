/* The walk along the frames of a thread, from the leaf to the root. */
#ifndef PROFILER_WALK_H
#define PROFILER_WALK_H

#include "codes.h"

/* How the frames are iterated: by `bpf_loop`, or before Linux 5.17 by a loop of calls. */
enum way { BY_HELPER, BY_CALLS };

/* The bytes of a frame, copied with what lies before it on its page; null if they are not in memory. */
static ALWAYS_INLINE const u8 *copy_frame(struct walk *walk, u64 address) {
    const struct layout *layout = walk->layout;
    u64 offset = KEEP(address - walk->window_start);
    if (offset > walk->window_last || offset > WINDOW_BYTES) {
        u32 size = layout->frame_size;
        if (size > FRAME_BYTES)
            size = FRAME_BYTES;
        offset = KEEP(address & (PAGE_BYTES - 1));
        if (offset > layout->frames_before)
            offset = layout->frames_before;
        if (offset > WINDOW_BYTES)
            offset = WINDOW_BYTES;
        walk->window_start = address - offset;
        walk->window_last = offset;
        if (bpf_probe_read_user(walk->window, offset + size, at(walk->window_start)) != 0)
            return 0;
    }
    return walk->window + offset;
}

/* One frame of the walk; returns 1 when the walk is over. */
static ALWAYS_INLINE int step(u32 index, struct walk *walk) {
    const struct layout *layout = walk->layout;
    u64 address = walk->next;
    if (address == 0 || address == walk->end)
        return 1;
    if (index >= MAX_FRAMES) {
        walk->outcome = OUTCOME_TRUNCATED;
        return 1;
    }
    /* Repeats the check in a form that the verifier understands. */
    u64 slot = KEEP(index) & (MAX_FRAMES - 1);
    struct frame_copy *frame = &walk->record->frames[slot];
    const u8 *bytes = copy_frame(walk, address);
    frame->address = address;
    if (!bytes) {
        walk->outcome = OUTCOME_UNREADABLE;
        return 1;
    }
    walk->record->frame_count = index + 1;
    walk->next = field(bytes, layout->frame_previous, FRAME_BYTES);
    frame->code = 0;
    frame->head_hash = 0;
    frame->instruction = field(bytes, layout->frame_instruction, FRAME_BYTES);
    frame->bytecode_copy = (u32)field(bytes, layout->frame_bytecode_copy, FRAME_BYTES);
    frame->is_entry = byte(bytes, layout->frame_is_entry);
    frame->owner = byte(bytes, layout->frame_owner);
    frame->padding = 0;
    if (layout->frame_owner == NO_OFFSET || !((layout->shim_owners >> (frame->owner & 31)) & 1))
        frame->code = field(bytes, layout->frame_code, FRAME_BYTES) & layout->code_mask;
    MIX(walk->group, frame->code);
    if (index % GROUP != GROUP - 1 || identify(walk, GROUP))
        return 0;
    walk->outcome = OUTCOME_UNREADABLE;
    return 1;
}

/* The next group of frames of the walk; returns 1 when the walk is over. A group at a time, as each call costs a third as much
 * as a frame. */
static long steps(u32 index, void *context) {
#pragma unroll
    for (u32 i = 0; i < GROUP; i++)
        if (step(index * GROUP + i, context))
            return 1;
    return 0;
}

/* The same for the walk whose position is in this CPU's workspace. As this takes nothing but a number, the verifier checks it by
 * itself and once, not once for each of the frames. */
__attribute__((noinline)) int step_group(u32 index) {
    u32 cpu = bpf_get_smp_processor_id();
    struct workspace *workspace = bpf_map_lookup_elem(&workspaces, &cpu);
    struct sent_codes *sent = bpf_map_lookup_elem(&sent_codes, &cpu);
    if (!workspace || !sent)
        return 1;
    struct walk_position *position = &workspace->position;
    struct stack_record *record = &workspace->record;
    struct walk walk = {
        .layout = layout_of_record(workspace),
        .record = record,
        .head = workspace->head,
        .window = workspace->window.bytes,
        .window_start = position->window_start,
        .window_last = position->window_last,
        .next = position->next,
        .end = position->end,
        .proof = position->proof,
        .sent = sent,
        .group = position->group,
        .process = record->process,
        .outcome = position->outcome,
    };
    int is_over = steps(index, &walk) != 0;
    position->window_start = walk.window_start;
    position->window_last = walk.window_last;
    position->next = walk.next;
    position->group = walk.group;
    position->outcome = walk.outcome;
    return is_over;
}

static ALWAYS_INLINE void walk_by_calls(struct walk *walk, struct walk_position *position) {
    position->window_start = walk->window_start;
    position->window_last = walk->window_last;
    position->next = walk->next;
    position->end = walk->end;
    position->proof = walk->proof;
    position->group = walk->group;
    position->outcome = walk->outcome;
#pragma clang loop unroll(disable)
    for (u32 index = 0; index <= MAX_FRAMES / GROUP; index++)
        if (step_group(index))
            break;
    walk->next = position->next;
    walk->group = position->group;
    walk->outcome = position->outcome;
}

#endif
