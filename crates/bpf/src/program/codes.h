/* Code objects: the hash that identifies each, the names that go with it, and when either need not be sent again. */
#ifndef PROFILER_CODES_H
#define PROFILER_CODES_H

#include "maps.h"
#include "memory.h"
#include "workspace.h"

/* Where each CPU puts a record of names together. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct names_record);
} names SECTION(".maps");

/* A code object that was met. Several CPUs may read and write a slot at once, so `sent` and `proof` each include the hash that
 * they belong to: a slot that is half one object's and half another's matches neither. */
struct known_code {
    u64 head_hash;
    /* `code_key` ^ hash: the names that belong to this hash were sent. */
    u64 sent;
    /* `code_key` ^ hash ^ `proof_of_codes`: the object had this hash at an instant of that proof. */
    u64 proof;
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, CODE_SLOTS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct known_code);
} codes SECTION(".maps");

/* Sends the names of a code object; returns whether the ring had room for them. */
static ALWAYS_INLINE int send_names(const struct walk *walk, u64 code, u64 head_hash) {
    const struct layout *layout = walk->layout;
    u32 cpu = bpf_get_smp_processor_id();
    struct names_record *record = bpf_map_lookup_elem(&names, &cpu);
    if (!record)
        return 0;
    record->kind = RECORD_NAMES;
    record->process = walk->process;
    record->runtime = walk->record->runtime;
    record->code = code;
    record->head_hash = head_hash;
    record->object_copied = copy_object(record->object_copy, OBJECT_BYTES, code);
    record->name = field(record->object_copy, layout->code_name, OBJECT_BYTES);
    record->filename = field(record->object_copy, layout->code_filename, OBJECT_BYTES);
    record->line_table = field(record->object_copy, layout->code_line_table, OBJECT_BYTES);
    record->qualname = 0;
    record->qualname_copied = 0;
    record->name_copied = copy_object(record->name_copy, NAME_BYTES, record->name);
    record->filename_copied = copy_object(record->filename_copy, FILE_BYTES, record->filename);
    if (layout->code_qualname != NO_OFFSET) {
        record->qualname = field(record->object_copy, layout->code_qualname, OBJECT_BYTES);
        record->qualname_copied = copy_object(record->qualname_copy, NAME_BYTES, record->qualname);
    }
    /* The head of the bytes object, its content and the zero behind it. */
    u64 length = read_pointer(record->line_table + layout->bytes_length) + 33;
    u32 copied = length < LINE_TABLE_BYTES ? (u32)length : LINE_TABLE_BYTES;
    if (bpf_probe_read_user(record->line_table_copy, copied, at(record->line_table)) != 0)
        copied = 0;
    record->line_table_copied = copied;
    u64 size = __builtin_offsetof(struct names_record, line_table_copy) + copied;
    if (size > sizeof *record)
        return 0;
    if (bpf_ringbuf_output(&ring, record, size, BPF_RB_NO_WAKEUP) == 0)
        return 1;
    count(COUNTER_NAMES_LOST, 1);
    return 0;
}

/* The key of a code object: its address in its process, mixed; never 0. */
static ALWAYS_INLINE u64 code_key(u32 process, u64 code) {
    u64 key = 0;
    MIX(key, code);
    MIX(key, process);
    return key | 1;
}

/* Sets the hash of a frame's code object, and sends its names unless they were sent before. Returns 1; 0 if the ring had no
 * room for the names; below 0 if the code object is not in memory. */
static ALWAYS_INLINE int hash_code(struct walk *walk, struct frame_copy *frame) {
    const struct layout *layout = walk->layout;
    u64 key = code_key(walk->process, frame->code);
    u32 slot = (u32)(key >> 32) & (CODE_SLOTS - 1);
    struct known_code *known = bpf_map_lookup_elem(&codes, &slot);
    if (!known)
        return -1;
    u64 known_hash = *(volatile u64 *)&known->head_hash;
    if (known->proof == (key ^ known_hash ^ walk->proof)) {
        frame->head_hash = known_hash;
        return 1;
    }
    u64 *head = walk->head;
    __builtin_memset(head, 0, HEAD_BYTES);
    u32 length = layout->head_length;
    if (length > HEAD_BYTES)
        length = HEAD_BYTES;
    if (bpf_probe_read_user(head, length, at(frame->code + layout->head_start)) != 0)
        return -1;
    u64 head_hash = hash(head, length);
    frame->head_hash = head_hash;
    if (known_hash != head_hash || known->sent != (key ^ head_hash) || layout->always_send_names) {
        /* Names that found no room are sent again with the next frame of this code. */
        if (!send_names(walk, frame->code, head_hash))
            return 0;
        known->head_hash = head_hash;
        known->sent = key ^ head_hash;
    }
    known->proof = key ^ head_hash ^ walk->proof;
    return 1;
}

static ALWAYS_INLINE int has_mark(const u32 *bucket, u32 mark) {
    return bucket[0] == mark || bucket[1] == mark || bucket[2] == mark || bucket[3] == mark;
}

/* Puts a mark in front of the others of its bucket. */
static ALWAYS_INLINE void add_mark(u32 *bucket, u32 mark) {
    bucket[3] = bucket[2];
    bucket[2] = bucket[1];
    bucket[1] = bucket[0];
    bucket[0] = mark;
}

/* Identifies the code objects of the last `count` frames of the walk by their hashes, unless these were sent before. Returns
 * whether all of them are in memory. */
static ALWAYS_INLINE int identify(struct walk *walk, u32 count) {
    struct stack_record *record = walk->record;
    u64 group = walk->group;
    walk->group = walk->process;
    u32 mark = (group ^ walk->proof) >> 32;
    u32 *bucket = walk->sent->marks[group & (SENT_BUCKETS - 1)];
    if (record->proof && has_mark(bucket, mark))
        return 1;
    int all_sent = 1;
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < GROUP; i++) {
        u64 slot = KEEP(record->frame_count - 1 - i) & (MAX_FRAMES - 1);
        struct frame_copy *frame = &record->frames[slot];
        if (i >= count)
            break;
        if (!frame->code)
            continue;
        int found = hash_code(walk, frame);
        if (found < 0)
            return 0;
        all_sent &= found;
    }
    if (record->proof && all_sent)
        add_mark(bucket, mark);
    return 1;
}

/* Identifies the frames that are left once the walk is over. */
static ALWAYS_INLINE void identify_rest(struct walk *walk) {
    u32 rest = walk->record->frame_count % GROUP;
    if (rest && walk->outcome <= OUTCOME_TRUNCATED && !identify(walk, rest))
        walk->outcome = OUTCOME_UNREADABLE;
}

/* The proof of a walk: all code objects that are met under one proof stay what they are, so that each is read once. A proof stands
 * for the time in which the interpreter frees (3.14 and later) or makes (3.13) no code object. If the interpreter counts
 * neither, each walk has its own.
 *
 * The count starts at 0 in an interpreter that takes the place of another, after an exec or within the process. It takes
 * milliseconds until that count has reached the old one. So a new proof begins after a gap between two checks, and whenever
 * another count is found. */
static ALWAYS_INLINE u64 proof_of_codes(const struct layout *layout, struct code_epoch *epoch, u64 count,
                                        struct stack_record *record) {
    u64 now = record->time;
    u64 proof = record->runtime;
    if (layout->code_count_size == 4)
        count = (u32)count;
    if (count == 0 || layout->always_send_names) {
        MIX(proof, now);
        MIX(proof, ~(u64)record->thread);
        return proof;
    }
    int lasts = epoch->count == count && (s64)(now - epoch->checked) <= MAX_CHECK_GAP;
    if (!lasts) {
        epoch->count = count;
        epoch->since = now;
    }
    /* Last: another CPU that finds no gap must not find what was before it. */
    *(volatile u64 *)&epoch->checked = now;
    MIX(proof, *(volatile u64 *)&epoch->since);
    MIX(proof, count);
    /* A stack that is kept may arrive long after what was sent under this proof has been forgotten; and a stack that begins an
     * epoch may be the only one of it. */
    if (lasts && record->kind == RECORD_STACK)
        record->proof = proof;
    return proof;
}

#endif
