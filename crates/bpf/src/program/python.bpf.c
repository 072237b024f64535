/* Takes the Python stack of the thread that runs on this CPU at this instant.
 *
 * Runs at each tick of a perf event (the clock of a CPU). The thread is interrupted and cannot go on meanwhile,
 * so nothing that is read here can be torn: frames are only changed by their own thread. Memory
 * that is not there (a page that was never touched or was swapped out) cannot be waited for here; such a
 * stack is lost, and says why.
 *
 * Of each frame goes along what user space makes the frames of any other memory of. Of each code object a hash of the
 * bytes that identify it is sent along, and on first sight its names. */
#include "records.h"

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_PROCESSES);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct layout);
} layouts SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct thread);
} threads SECTION(".maps");

/* Too large for the stack: one of each for every CPU. No event interrupts another on the same CPU. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct stack_record);
} stacks SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct names_record);
} names SECTION(".maps");

/* A frame as it lies in memory, one for every CPU. */
struct frame_bytes {
    u8 bytes[FRAME_BYTES];
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct frame_bytes);
} frame_bytes SECTION(".maps");

/* What a CPU's clock had counted at its last tick, and for how long it had not been let tick. */
struct clock {
    u64 counter;
    u64 rest;
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct clock);
} clocks SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, SENT_SLOTS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} sent SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, COUNTERS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} counters SECTION(".maps");

/* 4 MiB; user space may ask for another size. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_RINGBUF);
    MAP_NUMBER(max_entries, 4 * 1024 * 1024);
} ring SECTION(".maps");

char program_license[] SECTION("license") = "Dual MIT/GPL";

static ALWAYS_INLINE void count(u32 counter) {
    u64 *value = bpf_map_lookup_elem(&counters, &counter);
    if (value)
        __sync_fetch_and_add(value, 1);
}

static ALWAYS_INLINE const void *at(u64 address) { return (const void *)address; }

static ALWAYS_INLINE u64 read_pointer(u64 address) {
    u64 value = 0;
    bpf_probe_read_user(&value, sizeof value, at(address));
    return value;
}

/* A number that stands at `offset` of a copy, or 0 where the copy has no such place. */
static ALWAYS_INLINE u64 field(const u8 *copy, u32 offset, u32 size) {
    if (offset > size - 8)
        return 0;
    return *(const u64 *)(copy + offset);
}

#define MIX(state, word)                                                                                               \
    do {                                                                                                               \
        state = (state ^ (word)) * 0x9e3779b97f4a7c15ull;                                                              \
        state ^= state >> 29;                                                                                          \
    } while (0)

/* Hashes the head of a code object of so many bytes, padded with zeroes to whole words: `head_hash` of user space
 * does the same. Two words at a time, as each step has to wait for the one before. */
static ALWAYS_INLINE u64 hash(const u64 *words, u32 length) {
    u64 even = 0, odd = 0;
#pragma unroll
    for (u32 i = 0; i < HEAD_BYTES / 8; i += 2) {
        if (i * 8 >= length)
            break;
        MIX(even, words[i]);
        MIX(odd, words[i + 1]);
    }
    MIX(even, odd);
    return even;
}

/* Copies an object, or as much of it as lies on its first page; returns how much that was. */
static ALWAYS_INLINE u32 copy_object(u8 *into, u32 size, u64 address) {
    if (bpf_probe_read_user(into, size, at(address)) == 0)
        return size;
    u64 rest = KEEP(4096 - (address & 4095));
    if (rest < size && bpf_probe_read_user(into, rest, at(address)) == 0)
        return rest;
    return 0;
}

/* Returns whether there was room for them. */
static ALWAYS_INLINE int send_names(const struct layout *layout, u32 process, u64 code, u64 head_hash) {
    u32 cpu = bpf_get_smp_processor_id();
    struct names_record *record = bpf_map_lookup_elem(&names, &cpu);
    if (!record)
        return 0;
    record->kind = RECORD_NAMES;
    record->process = process;
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
    count(COUNTER_NAMES_LOST);
    return 0;
}

struct walk {
    const struct layout *layout;
    struct stack_record *record;
    u8 *bytes;
    u64 next;
    u64 end;
    u32 process;
    u32 outcome;
};

/* The code object of a frame: its hash, and its names if they were not sent yet. */
static ALWAYS_INLINE int identify(struct walk *walk, struct frame_copy *frame) {
    const struct layout *layout = walk->layout;
    u64 head[HEAD_BYTES / 8] = {};
    u32 length = layout->head_length;
    if (length > HEAD_BYTES)
        length = HEAD_BYTES;
    if (bpf_probe_read_user(head, length, at(frame->code + layout->head_start)) != 0)
        return -1;
    frame->head_hash = hash(head, length);
    u64 key = frame->head_hash ^ (frame->code * 0x9e3779b97f4a7c15ull) ^ walk->process;
    u32 slot = (u32)(key >> 32) & (SENT_SLOTS - 1);
    u64 *known = bpf_map_lookup_elem(&sent, &slot);
    if (known && (*known != key || layout->always_send_names)) {
        /* What found no room is sent again with the next frame of this code. */
        if (send_names(layout, walk->process, frame->code, frame->head_hash))
            *known = key;
    }
    return 0;
}

/* A byte of a frame, or 0 where a version has no such byte. */
static ALWAYS_INLINE u8 byte(const u8 *frame, u32 offset) { return offset < FRAME_BYTES ? frame[offset] : 0; }

/* One frame of the walk; returns 1 when it is over. */
static long step(u32 index, void *context) {
    struct walk *walk = context;
    const struct layout *layout = walk->layout;
    u64 address = walk->next;
    if (address == 0 || address == walk->end)
        return 1;
    if (index >= MAX_FRAMES) {
        walk->outcome = OUTCOME_TRUNCATED;
        return 1;
    }
    /* Says again what was checked, where the verifier sees it. */
    u64 slot = KEEP(index) & (MAX_FRAMES - 1);
    struct frame_copy *frame = &walk->record->frames[slot];
    u8 *bytes = walk->bytes;
    u32 size = layout->frame_size;
    if (size > FRAME_BYTES)
        size = FRAME_BYTES;
    frame->address = address;
    if (bpf_probe_read_user(bytes, size, at(address)) != 0) {
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
    if (layout->frame_owner != NO_OFFSET && (layout->shim_owners >> (frame->owner & 31)) & 1)
        return 0;
    frame->code = field(bytes, layout->frame_code, FRAME_BYTES) & layout->code_mask;
    if (identify(walk, frame) != 0) {
        walk->outcome = OUTCOME_UNREADABLE;
        return 1;
    }
    return 0;
}

/* 3.6 makes the GIL with the second thread: until then it says -1, and the only thread runs as if it held it. */
static ALWAYS_INLINE int holds_gil(const struct thread_state *state) {
    if (!state->gil_locked)
        return 0;
    u32 locked = (u32)read_pointer(state->gil_locked);
    return locked == ~0u || (locked == 1 && read_pointer(state->gil_last_holder) == state->state);
}

/* The thread state in which the thread runs: of several the one that holds its GIL, else the youngest. */
static ALWAYS_INLINE const struct thread_state *running_state(const struct thread *thread,
                                                              struct stack_record *record) {
#pragma unroll
    for (u32 i = 0; i < MAX_STATES; i++) {
        if (i < thread->count && holds_gil(&thread->states[i])) {
            record->holds_gil = 1;
            return &thread->states[i];
        }
    }
    return &thread->states[0];
}

static ALWAYS_INLINE u32 walk_thread(const struct layout *layout, struct stack_record *record) {
    u32 tid = record->thread;
    struct thread *thread = bpf_map_lookup_elem(&threads, &tid);
    if (!thread)
        return OUTCOME_UNKNOWN_THREAD;
    if (thread->count == 0)
        return OUTCOME_NO_PYTHON;
    const struct thread_state *state = running_state(thread, record);
    record->thread_state = state->state;
    u32 size = layout->thread_size;
    if (size > THREAD_BYTES)
        size = THREAD_BYTES;
    /* The memory of a process goes before its last thread does. */
    if (bpf_probe_read_user(record->thread_copy, size, at(state->state)) != 0)
        return OUTCOME_CHANGED_THREAD;
    if (field(record->thread_copy, layout->thread_interpreter, THREAD_BYTES) != state->interpreter ||
        field(record->thread_copy, layout->thread_id, THREAD_BYTES) != state->thread_id)
        return OUTCOME_CHANGED_THREAD;
    u64 leaf = field(record->thread_copy, layout->thread_frame, THREAD_BYTES);
    if (layout->cframe_current_frame != NO_OFFSET && leaf) {
        leaf = read_pointer(leaf + layout->cframe_current_frame);
    }
    u32 cpu = bpf_get_smp_processor_id();
    u8 *bytes = bpf_map_lookup_elem(&frame_bytes, &cpu);
    if (!bytes)
        return OUTCOME_UNREADABLE;
    struct walk walk = {
        .layout = layout,
        .record = record,
        .bytes = bytes,
        .next = leaf,
        .end = layout->thread_base_frame == NO_OFFSET
                   ? 0
                   : field(record->thread_copy, layout->thread_base_frame, THREAD_BYTES),
        .process = record->process,
        .outcome = OUTCOME_WHOLE,
    };
    bpf_loop(MAX_FRAMES + 1, step, &walk, 0);
    record->end = walk.next;
    return walk.outcome;
}

/* Takes the stack of the current thread, which has these ids, at the instant `now`. */
static ALWAYS_INLINE void take_stack(const struct layout *layout, struct stack_record *record, u32 kind, u64 ids,
                                     u64 now) {
    record->kind = kind;
    record->time = now;
    record->process = ids >> 32;
    record->thread = (u32)ids;
    record->thread_state = 0;
    record->frame_count = 0;
    record->end = 0;
    record->ran = 0;
    record->holds_gil = 0;
    record->outcome = walk_thread(layout, record);
    record->took = (u32)(bpf_ktime_get_ns() - now);
}

/* Wakes user space once a good part of the ring is full, and at once if there is a thread that it should tell of; it
 * looks by itself now and then otherwise. */
static ALWAYS_INLINE u64 wakeup(u32 outcome) {
    if (outcome == OUTCOME_UNKNOWN_THREAD)
        return BPF_RB_FORCE_WAKEUP;
    return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > 1024 * 1024 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* For how long this tick stands: what the CPU's clock has counted since its last one, whatever ran; and for how long
 * it was not let tick. */
static ALWAYS_INLINE void weigh(void *context, u32 cpu, struct stack_record *record) {
    struct perf_event_value value = {};
    bpf_perf_prog_read_value(context, &value, sizeof value);
    struct clock *last = bpf_map_lookup_elem(&clocks, &cpu);
    if (!last)
        return;
    u64 rest = value.enabled - value.counter;
    u64 rested = rest > last->rest ? rest - last->rest : 0;
    record->weight = value.counter - last->counter;
    record->rested = rested < ~0u ? (u32)rested : ~0u;
    last->counter = value.counter;
    last->rest = rest;
}

/* What is to be done beside, told when this is loaded: the verifier leaves out what is not. */
const volatile u32 watches_threads = 0;

static ALWAYS_INLINE u64 time_on_cpu(u32 thread, u64 now);

SECTION("perf_event")
int sample(void *context) {
    u64 start = bpf_ktime_get_ns();
    u64 ids = bpf_get_current_pid_tgid();
    u32 process = ids >> 32;
    u32 cpu = bpf_get_smp_processor_id();
    struct stack_record *record = bpf_map_lookup_elem(&stacks, &cpu);
    if (!record)
        return 0;
    weigh(context, cpu, record);
    const struct layout *layout = bpf_map_lookup_elem(&layouts, &process);
    if (!layout)
        return 0;
    count(COUNTER_EVENTS);
    take_stack(layout, record, RECORD_STACK, ids, start);
    if (watches_threads)
        record->ran = time_on_cpu(record->thread, start);
    u64 frames = KEEP(record->frame_count);
    if (frames > MAX_FRAMES)
        frames = MAX_FRAMES;
    u64 size = __builtin_offsetof(struct stack_record, frames) + frames * sizeof(struct frame_copy);
    if (bpf_ringbuf_output(&ring, record, size, wakeup(record->outcome)) != 0)
        count(COUNTER_RING_FULL);
    return 0;
}

#include "off_cpu.h"
