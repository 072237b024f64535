/* Takes the Python stack of the thread that runs on this CPU at this instant.
 *
 * Runs at each tick of a perf event (the clock of a CPU). The thread is interrupted and cannot go on meanwhile,
 * so nothing that is read here can be torn: frames are only changed by their own thread. Memory
 * that is not there (a page that was never touched or was swapped out) cannot be waited for here; such a
 * stack is lost, and says why.
 *
 * Of each frame goes along what user space makes the frames of any other memory of. Of each code object a hash of the
 * bytes that identify it is sent along, and on first sight its names. */
#include "ids.h"
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

/* How often user space has changed the two maps above. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, 1);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} generations SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_PROCESSES);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct look);
} looks SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct names_record);
} names SECTION(".maps");

/* A piece of memory with frames in it. Each reading of the target's memory takes some 0.1 us, however much is read, and
 * what lies before a frame mostly is its callers (3.11+). */
struct window {
    u8 bytes[WINDOW_BYTES + FRAME_BYTES];
};

/* How far a walk has come, for kernels whose programs have no `bpf_loop`: see `steps_by_themselves`. */
struct walk_place {
    u64 window_start;
    u64 window_last;
    u64 next;
    u64 end;
    u64 proof;
    u64 group;
    u64 outcome;
};

/* The thread that a CPU sampled last, with what was registered of it and of its process in that generation: mostly the next
 * sample is of the same one, and to look both up takes misses of the CPU's caches and of its translations, some 0.4 us. */
struct thread_cache {
    /* Its ids; 0 for none. */
    u64 ids;
    u64 generation;
    u64 is_told;
    struct layout layout;
    struct thread thread;
};

/* What a walk works with, too large for the stack: one for every CPU, as no event interrupts another on the same one. What
 * most stacks need of it lies on one page, and so takes one look-up of a translation. */
struct workspace {
    struct thread_cache met;
    struct window window;
    struct walk_place place;
    /* Of a code object, the bytes that identify it. Kernels before 6.13 have 512 bytes of stack for a program and what it
     * calls together. */
    u64 head[HEAD_BYTES / 8];
    struct stack_record record;
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct workspace);
} workspaces SECTION(".maps");

/* What a CPU's clock had counted when it was asked last, and for how long it had not been let tick; when its last tick was due
 * and when it came; how many of its ticks found a process that is sampled. Alone on a line of the CPU's caches. */
struct clock {
    u64 counter;
    u64 rest;
    u64 due;
    u64 came;
    u64 events;
    /* The period of its last tick, and the change that had set it. */
    u64 period;
    u64 change;
    u64 padding;
};

/* The period of a CPU's clock, and the instant at which the change to it was done: 0 while user space does it. Between two
 * changes the ticks are evenly spaced. */
struct tick_period {
    u64 period;
    u64 change;
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct tick_period);
} periods SECTION(".maps");

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct clock);
} clocks SECTION(".maps");

/* A code object that was met. Several CPUs may read and write a slot at once, so each number is of use only
 * together with the hash that it was made of: a slot that is half one object's and half another's says nothing. */
struct known_code {
    u64 head_hash;
    /* `code_key` ^ hash: the names that belong to this hash were sent. */
    u64 sent;
    /* `code_key` ^ hash ^ `proof_of_codes`: it had this hash at an instant of that proof. */
    u64 proof;
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, CODE_SLOTS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct known_code);
} codes SECTION(".maps");

/* Marks of the groups of frames whose hashes this CPU has sent, and of the proof under which it did, the youngest of a
 * bucket first. To look up each frame's code object in the large table above costs two misses each, of the CPU's caches
 * and of its translations: of 20 frames that took 7 us. Who calls whom is mostly the same, so a mark for several will do,
 * and 8 pages have them all.
 *
 * Different groups can have the same mark, and what was sent may not have arrived: user space knows under which proof it
 * got each hash, and believes nothing else. */
struct sent_codes {
    u32 marks[SENT_BUCKETS][SENT_WAYS];
};

struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_ARRAY);
    MAP_NUMBER(max_entries, MAX_CPUS);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct sent_codes);
} sent_codes SECTION(".maps");

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

char program_license[] SECTION("license") = "Dual MIT/GPL";

static ALWAYS_INLINE void count(u32 counter) {
    u64 *value = bpf_map_lookup_elem(&counters, &counter);
    if (value)
        __sync_fetch_and_add(value, 1);
}

/* The ring had no room for something of a thread: for a sample, which stands for `weight`, or for anything else. */
static ALWAYS_INLINE void count_loss(u32 process, u32 thread, u64 weight) {
    count(COUNTER_RING_FULL);
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
    u64 rest = KEEP(PAGE_BYTES - (address & (PAGE_BYTES - 1)));
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
    u64 *head;
    /* Copied at this instant: where it starts, and how far into it the last whole frame may start. */
    u8 *window;
    u64 window_start;
    u64 window_last;
    u64 next;
    u64 end;
    /* What was met with the same one need not be looked at again, see `proof_of_codes`. */
    u64 proof;
    struct sent_codes *sent;
    /* Stands for the code objects of the frames that are not identified yet. */
    u64 group;
    u32 process;
    u32 outcome;
};

/* Stands for a code object's address in a process; never 0. */
static ALWAYS_INLINE u64 code_key(u32 process, u64 code) {
    u64 key = 0;
    MIX(key, code);
    MIX(key, process);
    return key | 1;
}

/* The hash of a frame's code object, and its names if they were not sent yet. Returns 1; 0 if there was no room for the
 * names; below 0 if the code object is not there. */
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
        /* What found no room is sent again with the next frame of this code. */
        if (!send_names(layout, walk->process, frame->code, head_hash))
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

/* Identifies the code objects of the last `count` frames that were walked: by their hashes, unless those are what was sent before.
 * Returns whether all of them are there. */
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

/* The same for those that are left once the walk is over. */
static ALWAYS_INLINE void identify_rest(struct walk *walk) {
    u32 rest = walk->record->frame_count % GROUP;
    if (rest && walk->outcome <= OUTCOME_TRUNCATED && !identify(walk, rest))
        walk->outcome = OUTCOME_UNREADABLE;
}

/* A byte of a frame, or 0 where a version has no such byte. */
static ALWAYS_INLINE u8 byte(const u8 *frame, u32 offset) { return offset < FRAME_BYTES ? frame[offset] : 0; }

/* The bytes of a frame, copied with what lies before it on its page; null where they are not there. */
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

/* One frame of the walk; returns 1 when it is over. */
static ALWAYS_INLINE int step(u32 index, struct walk *walk) {
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

/* The next frames of the walk, as many as are identified at a time; returns 1 when it is over. Each call costs as much as a
 * third of a frame. */
static long steps(u32 index, void *context) {
#pragma unroll
    for (u32 i = 0; i < GROUP; i++)
        if (step(index * GROUP + i, context))
            return 1;
    return 0;
}

/* The same on what the maps know of the walk on this CPU. As a function that takes nothing but a number it is checked by
 * itself and once, not once for each frame that there may be. */
__attribute__((noinline)) int steps_by_themselves(u32 index) {
    u32 cpu = bpf_get_smp_processor_id();
    struct workspace *workspace = bpf_map_lookup_elem(&workspaces, &cpu);
    struct sent_codes *sent = bpf_map_lookup_elem(&sent_codes, &cpu);
    if (!workspace || !sent)
        return 1;
    struct walk_place *place = &workspace->place;
    struct stack_record *record = &workspace->record;
    struct walk walk = {
        .layout = &workspace->met.layout,
        .record = record,
        .head = workspace->head,
        .window = workspace->window.bytes,
        .window_start = place->window_start,
        .window_last = place->window_last,
        .next = place->next,
        .end = place->end,
        .proof = place->proof,
        .sent = sent,
        .group = place->group,
        .process = record->process,
        .outcome = place->outcome,
    };
    int is_over = steps(index, &walk) != 0;
    place->window_start = walk.window_start;
    place->window_last = walk.window_last;
    place->next = walk.next;
    place->group = walk.group;
    place->outcome = walk.outcome;
    return is_over;
}

static ALWAYS_INLINE void walk_by_calls(struct walk *walk, struct walk_place *place) {
    place->window_start = walk->window_start;
    place->window_last = walk->window_last;
    place->next = walk->next;
    place->end = walk->end;
    place->proof = walk->proof;
    place->group = walk->group;
    place->outcome = walk->outcome;
#pragma clang loop unroll(disable)
    for (u32 index = 0; index <= MAX_FRAMES / GROUP; index++)
        if (steps_by_themselves(index))
            break;
    walk->next = place->next;
    walk->group = place->group;
    walk->outcome = place->outcome;
}

/* A piece of the target's memory that was copied at this instant. */
struct piece {
    const u8 *window;
    u64 start;
    u64 length;
};

/* A number of the target: from the piece, or else read for itself. */
static ALWAYS_INLINE u64 number_at(const struct piece *piece, u64 address) {
    u64 offset = KEEP(address - piece->start);
    if (offset < piece->length && offset <= WINDOW_BYTES - 8)
        return *(const u64 *)(piece->window + offset);
    return read_pointer(address);
}

/* Copies the fields of a thread state's GIL, and the count of code objects if it is near. */
static ALWAYS_INLINE void copy_gil(const struct thread_state *state, u8 *window, struct piece *piece) {
    int is_first = state->gil_last_holder < state->gil_locked;
    u64 start = is_first ? state->gil_last_holder : state->gil_locked;
    u64 last = KEEP((is_first ? state->gil_locked : state->gil_last_holder) - start);
    u64 count = state->code_count - start;
    if (count > last && count <= GIL_BYTES - 8)
        last = count;
    piece->length = 0;
    if (last > GIL_BYTES - 8 || bpf_probe_read_user(window, last + 8, at(start)) != 0)
        return;
    piece->start = start;
    piece->length = last + 1;
}

/* 3.6 makes the GIL with the second thread: until then it says -1, and the only thread runs as if it held it. */
static ALWAYS_INLINE int holds_gil(const struct thread_state *state, const struct piece *piece) {
    u32 locked = (u32)number_at(piece, state->gil_locked);
    return locked == ~0u || (locked == 1 && number_at(piece, state->gil_last_holder) == state->state);
}

/* The thread state in which the thread runs: of several the one that holds its GIL, else the youngest. */
static ALWAYS_INLINE const struct thread_state *running_state(const struct thread *thread, struct stack_record *record,
                                                              u8 *window, struct piece *piece) {
#pragma unroll
    for (u32 i = 0; i < MAX_STATES; i++) {
        const struct thread_state *state = &thread->states[i];
        if (i >= thread->count)
            break;
        if (!state->gil_locked)
            continue;
        copy_gil(state, window, piece);
        if (holds_gil(state, piece)) {
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

/* Where the outermost frame says that its caller is. */
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
    /* The memory of a process goes before its last thread does. */
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
 * address of the one before. What was freed may still look like one that runs nothing. Its own is then the one that
 * holds the GIL, or where the call has released that, one of the youngest. */
static ALWAYS_INLINE int copy_running_state(const struct layout *layout, struct stack_record *record,
                                            const struct thread_state *registered, const struct piece *piece,
                                            u64 *frame) {
    if (copy_state(layout, record, registered, registered->state, frame) && *frame &&
        *frame != outermost_caller(layout, record))
        return 1;
    if (registered->gil_locked && (u32)number_at(piece, registered->gil_locked) == 1) {
        u64 holder = number_at(piece, registered->gil_last_holder);
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

/* What all code objects have in common that are met while none was freed (3.14+) or made (3.13): whichever was at an
 * address then is the one that is there now, so that it need not be looked at again. Where nothing tells that, those
 * that are met in this walk.
 *
 * The count starts anew with an interpreter that is started in the place of another, by an exec or within the
 * process. Until that has counted so far, milliseconds pass: what was met before a gap between two looks, or before
 * another count was found, proves nothing. */
static ALWAYS_INLINE u64 proof_of_codes(const struct layout *layout, struct look *look, u64 count,
                                        struct stack_record *record) {
    u64 now = record->time;
    u64 proof = 0;
    if (layout->code_count_size == 4)
        count = (u32)count;
    if (count == 0 || layout->always_send_names) {
        MIX(proof, now);
        MIX(proof, ~(u64)record->thread);
        return proof;
    }
    int stands = look->code_count == count && (s64)(now - look->looked) <= MAX_LOOK_GAP;
    if (!stands) {
        look->code_count = count;
        look->looked_since = now;
    }
    /* Not before: another CPU that finds no gap must not find what was before it. */
    *(volatile u64 *)&look->looked = now;
    MIX(proof, *(volatile u64 *)&look->looked_since);
    MIX(proof, count);
    /* A stack that is kept may arrive long after what was sent under this proof has been forgotten; and one that does not
     * find it standing may be the only one under it. */
    if (stands && record->kind == RECORD_STACK)
        record->proof = proof;
    return proof;
}

/* Has the workspace know the current thread, which has these ids; returns null if its process is not sampled. */
static ALWAYS_INLINE struct look *recognise(struct workspace *workspace, u64 ids) {
    struct thread_cache *met = &workspace->met;
    u32 zero = 0;
    const u64 *told = bpf_map_lookup_elem(&generations, &zero);
    if (!told || !ids)
        return 0;
    /* Before what belongs to it: user space writes it last. */
    u64 generation = *(volatile u64 *)told;
    if (met->ids != ids || met->generation != generation) {
        u32 process = ids >> 32;
        u32 tid = (u32)ids;
        const struct layout *layout = bpf_map_lookup_elem(&layouts, &process);
        if (!layout)
            return 0;
        const struct thread *thread = bpf_map_lookup_elem(&threads, &tid);
        met->ids = ids;
        met->generation = generation;
        met->layout = *layout;
        met->is_told = thread != 0;
        if (thread)
            met->thread = *thread;
    }
    u32 place = met->layout.place;
    return bpf_map_lookup_elem(&looks, &place);
}

/* How the frames are gone through: by the helper for it, or before Linux 5.17 by a loop of calls. */
enum way { BY_HELPER, BY_CALLS };

static ALWAYS_INLINE u32 walk_thread(struct workspace *workspace, struct look *look, enum way way) {
    struct stack_record *record = &workspace->record;
    const struct layout *layout = &workspace->met.layout;
    const struct thread *thread = &workspace->met.thread;
    if (id_source == IDS_BY_TYPES && record->thread == 0)
        return OUTCOME_CHANGED_THREAD;
    if (!workspace->met.is_told)
        return OUTCOME_UNKNOWN_THREAD;
    if (thread->count == 0)
        return OUTCOME_NO_PYTHON;
    u32 cpu = bpf_get_smp_processor_id();
    u8 *window = workspace->window.bytes;
    struct sent_codes *sent = bpf_map_lookup_elem(&sent_codes, &cpu);
    if (!sent)
        return OUTCOME_UNREADABLE;
    struct piece piece = {.window = window};
    const struct thread_state *state = running_state(thread, record, window, &piece);
    u64 count_of_codes = state->code_count ? number_at(&piece, state->code_count) : 0;
    u64 proof = proof_of_codes(layout, look, count_of_codes, record);
    u64 frame = 0;
    if (!copy_running_state(layout, record, state, &piece, &frame))
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
        walk_by_calls(&walk, &workspace->place);
    identify_rest(&walk);
    record->end = walk.next;
    return walk.outcome;
}

/* What is to be done beside, told when this is loaded: the verifier leaves out what is not. */
const volatile u32 watches_threads = 0;
const volatile u32 takes_kernel_frames = 0;

/* The bytes of a record as far as it is sent. */
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

/* Takes what the thread is doing in the kernel, if that was asked for and there is a stack to put it on. */
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

/* Takes the stack of the current thread, which the workspace knows (`recognise`), at the instant `now`. */
static ALWAYS_INLINE void take_stack(void *context, struct workspace *workspace, struct look *look, u32 kind, u64 now,
                                     enum way way) {
    struct stack_record *record = &workspace->record;
    record->kind = kind;
    record->time = now;
    record->process = workspace->met.ids >> 32;
    record->thread = (u32)workspace->met.ids;
    record->thread_state = 0;
    record->frame_count = 0;
    record->end = 0;
    record->ran = 0;
    record->proof = 0;
    record->holds_gil = 0;
    record->outcome = walk_thread(workspace, look, way);
    take_kernel_frames(context, record);
    record->took = (u32)(bpf_ktime_get_ns() - now);
}

/* Wakes user space once a good part of the ring is full, and at once if there is a thread that it should tell of; it
 * looks by itself now and then otherwise. */
static ALWAYS_INLINE u64 wakeup(u32 outcome) {
    if (outcome == OUTCOME_UNKNOWN_THREAD)
        return BPF_RB_FORCE_WAKEUP;
    return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > 1024 * 1024 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* How many ticks were due and did not come before this one at `now`, and how late this one is.
 *
 * The kernel's timer is periodic: a tick that comes late does not put off the next, and of those that are due
 * meanwhile none comes later (`hrtimer_forward`). When it is due is not told; it is as early as ticks ever come. */
static ALWAYS_INLINE void count_missed(struct clock *clock, struct stack_record *record, u64 period, u64 now) {
    s64 since = now - clock->due;
    u64 due_ticks = since > 0 && period ? ((u64)since + period / EARLY_PART) / period : 0;
    u64 due = clock->due + due_ticks * period;
    /* Before the next one could be due, so that it was restarted since; or earlier than ever. */
    if (due_ticks == 0 || now < due)
        due = now;
    clock->due = due;
    record->missed = due_ticks > 1 ? (u32)(due_ticks - 1) : 0;
    record->behind = (u32)(now - due);
}

/* Whether a tick came when it should: then its clock did not rest since the one before, or for less than the play. */
static ALWAYS_INLINE int is_punctual(u64 since, u64 period) {
    u64 play = period / EARLY_PART;
    return since + play >= period && since <= period + play;
}

/* The same for the first tick after a change of the period, `since` the last tick of a clock of period `before`. The change
 * restarted the timer, so the next tick was due one period later. A rest (throttling) came before the change, which ends it.
 * Where more than one period of the old clock had passed before the change besides, the CPU was idle then and did not tick:
 * what counts of that time is what passes between a tick and a change on average, half a period. */
static ALWAYS_INLINE void count_missed_after_change(struct clock *clock, struct stack_record *record, u64 before,
                                                    u64 since, u64 now) {
    u64 period = clock->period;
    u64 changed = clock->change;
    u64 after = changed && changed <= now && now - changed < since ? now - changed : since < period ? since : period;
    u64 earlier = since - after > record->rested ? since - after - record->rested : 0;
    u64 weight = KEEP(record->weight);
    u64 due_ticks = period ? (after + period / EARLY_PART) / period : 0;
    u64 idle = earlier > before + before / EARLY_PART ? earlier - before / 2 : 0;
    /* Then the tick before was due after the change. */
    if (due_ticks > 1)
        idle = earlier;
    u64 due = due_ticks * period;
    record->weight = weight > idle ? weight - idle : 0;
    record->missed = due_ticks > 1 ? (u32)(due_ticks - 1) : 0;
    record->behind = due_ticks && after > due ? (u32)(after - due) : 0;
    clock->due = now - record->behind;
}

/* For how long this tick stands where it does not come at its time: the time since the one before, less that for which the
 * clock was not let tick. Only the clock tells the latter. */
static ALWAYS_INLINE void weigh_by_clock(struct perf_event_context *context, struct clock *clock,
                                         struct stack_record *record, u64 since, u64 now) {
    struct perf_event_value value = {};
    bpf_perf_prog_read_value(context, &value, sizeof value);
    /* One that has counted less is another: the CPU was away. */
    if (value.counter < clock->counter)
        clock->rest = clock->due = 0;
    u64 rest = value.enabled - value.counter;
    u64 rested = rest > clock->rest ? rest - clock->rest : 0;
    record->weight = !clock->due ? value.counter : since > rested ? since - rested : 0;
    record->rested = rested < ~0u ? (u32)rested : ~0u;
    clock->counter = value.counter;
    clock->rest = rest;
    /* After a rest it starts anew. */
    if (clock->due == 0 || rested > clock->period / 2)
        clock->due = now - clock->period;
}

/* For how long this tick stands: the time since the last one of its CPU's clock, whatever ran. To ask the clock takes 0.4 us,
 * and it counts by another clock of the kernel, so that counts and times do not add up. */
static ALWAYS_INLINE void weigh(struct perf_event_context *context, struct clock *clock, const struct tick_period *set,
                                struct stack_record *record, u64 now) {
    u64 since = now - clock->came;
    u64 before = clock->period;
    u64 change = set->change;
    int goes_on = change && change == clock->change;
    clock->period = set->period;
    clock->change = change;
    record->period = (u32)clock->period;
    if (clock->due && goes_on && is_punctual(since, clock->period)) {
        record->weight = since;
        record->rested = 0;
    } else {
        weigh_by_clock(context, clock, record, since, now);
    }
    clock->came = now;
    if (goes_on || !before)
        count_missed(clock, record, clock->period, now);
    else
        count_missed_after_change(clock, record, before, since, now);
}

static ALWAYS_INLINE u64 time_on_cpu(u32 thread, u64 now);

static ALWAYS_INLINE int tick(struct perf_event_context *context, enum way way) {
    u64 start = bpf_ktime_get_ns();
    u64 ids = current_ids();
    u32 cpu = bpf_get_smp_processor_id();
    struct workspace *workspace = bpf_map_lookup_elem(&workspaces, &cpu);
    struct clock *clock = bpf_map_lookup_elem(&clocks, &cpu);
    struct tick_period *period = bpf_map_lookup_elem(&periods, &cpu);
    if (!workspace || !clock || !period)
        return 0;
    struct stack_record *record = &workspace->record;
    weigh(context, clock, period, record, start);
    struct look *look = recognise(workspace, ids);
    if (!look)
        return 0;
    clock->events += 1;
    take_stack(context, workspace, look, RECORD_STACK, start, way);
    if (way == BY_HELPER && watches_threads)
        record->ran = time_on_cpu(record->thread, start);
    if (bpf_ringbuf_output(&ring, record, record_size(record), wakeup(record->outcome)) != 0) {
        count_loss(record->process, record->thread, record->weight + record->rested);
        /* What it would have told of its code objects is to be told again. */
        look->looked = 0;
    }
    return 0;
}

SECTION("perf_event")
int sample(struct perf_event_context *context) { return tick(context, BY_HELPER); }

SECTION("perf_event")
int sample_by_calls(struct perf_event_context *context) { return tick(context, BY_CALLS); }

#include "off_cpu.h"
