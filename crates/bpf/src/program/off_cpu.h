/* What threads do while they are not on a CPU: for how long each is away, on what it waits, and its Python stack.
 *
 * The stack is taken when the thread leaves its CPU, which is the last moment at which its memory can be read, and
 * is kept with the thread; how long it was away is known when it comes back, and only then is the stack sent, if it
 * was away for long enough. Shorter off-CPU intervals are summed by what was waited for. Everything here runs inside the
 * scheduler, at each switch of the whole machine: threads that nobody asked for are to cost next to nothing. */
#ifndef PROFILER_OFF_CPU_H
#define PROFILER_OFF_CPU_H

#include "ids.h"
#include "records.h"

/* A stack that takes more room than so many frames do, those of the kernel included, is sent when its thread leaves, as
 * it is too large to be kept. */
#define KEPT_FRAMES 64
#define STACK_HEAD __builtin_offsetof(struct stack_record, frames)
#define KEPT_BYTES (STACK_HEAD + KEPT_FRAMES * sizeof(struct frame_copy))
/* Sums of short off-CPU intervals, by thread and by what was waited for. */
#define MAX_SUMS 16384
#define MAX_UNREGISTERED 4096
/* A thread whose thread state is not registered is reported again after this time. */
#define UNREGISTERED_GAP 100000000ull

enum off_cpu_kind { RECORD_INTERVAL = 3, RECORD_DEEP_STACK = 4, RECORD_UNREGISTERED = 5 };

enum interval_flags {
    /* It could have gone on: another thread was put in its place. */
    INTERVAL_RUNNABLE = 1,
    /* The stack was sent before, as it is deep. */
    INTERVAL_DEEP = 2,
    /* It was away already when it was told of: its stack was never taken here. */
    INTERVAL_FROM_START = 4,
    /* It has ended. */
    INTERVAL_END = 8,
    /* It came back and left again in between, how often and for how long is not known. */
    INTERVAL_SEVERAL = 16,
    /* The stack is deep and found no room in the ring. Of a sum: it is of off-CPU intervals that found none themselves. */
    INTERVAL_STACK_LOST = 32,
};

/* What a descriptor is open on: the first bytes of its name, where it is one of those that have no other place than a
 * name (an eventfd, a timer); which file system it lies on; and what kind of file it is, 0 where that is not known. */
struct open_file {
    u64 name;
    u32 file_system;
    u32 mode;
};

/* A thread, and its last off-CPU interval. This is also what is sent, without the unused end of the stack. */
struct interval {
    u32 kind;
    u32 process;
    u32 thread;
    u32 flags;
    /* When it left its CPU; 0 while it is on one. When it was woken, if it was. When it came back. */
    u64 left;
    u64 woken;
    u64 back;
    /* The system call that it left in, -1 for none, and what it was given. */
    s64 call;
    u64 arguments[3];
    /* How often the scheduler had put it on a CPU when it left. */
    u64 arrivals;
    /* How long it ran in all since it is watched, until it came back last. */
    u64 ran;
    /* The CPU time that the scheduler had counted of it when it left. */
    u64 executed;
    /* What the scheduler calls its state. */
    u32 state;
    u32 stack_bytes;
    /* Of a system call that waits for a descriptor: what that was open on when it left. */
    struct open_file file;
    /* For how long it was away in all off-CPU intervals of which nothing else is kept: they found room neither in the ring nor
     * in a sum. */
    u64 unsent;
    u8 stack[KEPT_BYTES];
};

/* Of an off-CPU interval that was long enough to be sent and found no room, its sum also says what the scheduler called the
 * state of the thread. */
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
    /* Until it was woken, and from then on. */
    u64 waited;
    u64 queued;
};

/* Until when user space has told of an off-CPU interval that lasts, which began at `left`. */
struct told {
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
    /* How far the scheduler's clock is behind ours, as the last return told; 0 before the first one. */
    u64 behind;
    /* 1: nothing is taken note of any more. */
    u64 is_over;
};

/* The threads that are watched: user space adds them, their end removes them. */
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

/* Of threads that are away: user space adds them, whoever makes use of one removes it. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, struct told);
} reported_until SECTION(".maps");

/* The ids of threads of processes that are sampled, by the kernel's own id, from when they begin to end until they leave
 * their CPU for the last time: outside of the first namespace, where their numbers are taken from them in between. They may
 * well lack a CPU meanwhile. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} endings SECTION(".maps");

/* Threads without a thread state, and when they were reported. */
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

/* Where the kernel's own structure of a thread has what is looked at: told when this is loaded (`task_layout.rs`). */
enum task_field { TASK_PID, TASK_EXECUTED, TASK_ARRIVALS, TASK_LAST_ARRIVAL, TASK_FIELDS };
const volatile u32 task_fields[TASK_FIELDS] = {};

/* The same for what its open files are: from the thread to the table of them, to a file in it, and to what tells of it
 * what it is. */
enum file_field {
    TASK_FILES,
    FILES_TABLE,
    TABLE_LENGTH,
    TABLE_FILES,
    FILE_INODE,
    FILE_ENTRY,
    INODE_MODE,
    INODE_SYSTEM,
    SYSTEM_MAGIC,
    ENTRY_NAME,
    FILE_FIELDS
};
const volatile u32 file_fields[FILE_FIELDS] = {};

/* A bit for each system call whose first argument is a descriptor for which it may wait; none where the fields are not
 * known. */
#define MAX_CALLS 512
const volatile u64 descriptor_calls[MAX_CALLS / 64] = {};

/* The file system of files that are nothing but a name (include/uapi/linux/magic.h). */
#define ANON_INODE_FS_MAGIC 0x09041934

/* The CPU time that the scheduler has counted of a thread, how often it was put on a CPU, or when it was last. */
static ALWAYS_INLINE u64 task_number(const struct task_struct *task, enum task_field field) {
    u64 value = 0;
    bpf_probe_read_kernel(&value, sizeof value, (const u8 *)task + task_fields[field]);
    return value;
}

/* By which id the kernel itself goes. */
static ALWAYS_INLINE u32 kernel_id(const struct task_struct *task) {
    u32 id = 0;
    bpf_probe_read_kernel(&id, sizeof id, (const u8 *)task + task_fields[TASK_PID]);
    return id;
}

/* The ids of a thread that has no numbers any more, or will have none soon; 0 where they are of no account. */
static ALWAYS_INLINE u64 ids_of_ending(const struct task_struct *task) {
    u32 id = kernel_id(task);
    u64 *ids = bpf_map_lookup_elem(&endings, &id);
    return ids ? *ids : 0;
}

/* By which id user space goes; 0 for a thread that it does not see. */
static ALWAYS_INLINE u32 task_id(const struct task_struct *task) {
    if (id_source == IDS_OF_KERNEL)
        return kernel_id(task);
    const u8 *numbers = numbers_of(task);
    return numbers ? number_here(numbers) : (u32)ids_of_ending(task);
}

/* The registers of user space on x86-64, in the order in which the kernel saves them. */
struct saved_registers {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    s64 orig_rax;
};

enum { TASK_RUNNING = 0, TASK_DEAD = 0x80 };

static ALWAYS_INLINE void report_stranger(u32 process, u32 thread, u64 now) {
    u64 *reported = bpf_map_lookup_elem(&unregistered_threads, &thread);
    if (reported && now - *reported < UNREGISTERED_GAP)
        return;
    struct unregistered record = {.kind = RECORD_UNREGISTERED, .process = process, .thread = thread};
    if (bpf_ringbuf_output(&ring, &record, sizeof record, BPF_RB_NO_WAKEUP) == 0)
        bpf_map_update_elem(&unregistered_threads, &thread, &now, BPF_ANY);
}

/* Sends what is known of a thread; returns whether there was room for it. */
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

/* Takes the stack of the current thread and keeps it, or sends it if it is too large to be kept. */
static ALWAYS_INLINE void keep_stack(void *context, struct interval *interval, u64 now) {
    interval->stack_bytes = 0;
    u32 cpu = bpf_get_smp_processor_id();
    struct workspace *workspace = bpf_map_lookup_elem(&workspaces, &cpu);
    if (!workspace)
        return;
    struct look *look = recognise(workspace, (u64)interval->process << 32 | interval->thread);
    if (!look)
        return;
    struct stack_record *record = &workspace->record;
    record->weight = 0;
    record->rested = 0;
    record->missed = 0;
    record->behind = 0;
    take_stack(context, workspace, look, RECORD_DEEP_STACK, now, BY_HELPER);
    u64 size = KEEP(record_size(record));
    if (size > KEPT_BYTES) {
        if (size > sizeof *record)
            size = sizeof *record;
        if (bpf_ringbuf_output(&ring, record, size, BPF_RB_NO_WAKEUP) == 0) {
            interval->flags |= INTERVAL_DEEP;
            return;
        }
        interval->flags |= INTERVAL_STACK_LOST;
        count_loss(record->process, record->thread, 0);
        return;
    }
    if (bpf_probe_read_kernel(interval->stack, size, record) == 0)
        interval->stack_bytes = size;
}

/* A watched thread. One whose end found no room in the ring is none any more, and another one may have its number. */
static ALWAYS_INLINE struct interval *watched(u32 thread) {
    struct interval *interval = bpf_map_lookup_elem(&intervals, &thread);
    return interval && !(interval->flags & INTERVAL_END) ? interval : 0;
}

static ALWAYS_INLINE struct interval *interval_of(struct task_struct *task) {
    u32 thread = task_id(task);
    if (id_source != IDS_OF_KERNEL && !thread)
        return 0;
    return watched(thread);
}

/* An off-CPU interval that is not sent: it is too short, or `kind` says that it found no room in the ring. */
static ALWAYS_INLINE int add_to_sums(const struct interval *interval, u32 kind, u64 waited, u64 queued) {
    struct sum_key key = {
        .thread = interval->thread,
        .flags = (interval->flags & INTERVAL_RUNNABLE) | kind,
        .call = interval->call,
        .argument = interval->arguments[0],
        .file = interval->file,
    };
    if (key.flags & INTERVAL_RUNNABLE) {
        /* Whatever it was doing is of no account: it did not wait for that. */
        key.call = -1;
        key.argument = 0;
        key.file = (struct open_file){};
    } else if (key.file.mode) {
        /* Which descriptor it was does not matter. */
        key.argument = 0;
    }
    struct sum *sum = bpf_map_lookup_elem(&sums, &key);
    if (!sum) {
        struct sum empty = {};
        bpf_map_update_elem(&sums, &key, &empty, BPF_ANY);
        sum = bpf_map_lookup_elem(&sums, &key);
        if (!sum)
            return 0;
    }
    /* Only this thread's own coming back writes here, but user space reads and removes. */
    __sync_fetch_and_add(&sum->intervals, 1);
    __sync_fetch_and_add(&sum->waited, waited);
    __sync_fetch_and_add(&sum->queued, queued);
    return 1;
}

/* Since when user space has not told of an off-CPU interval that is over. Who removes the note of it has made use of it: user
 * space removes it itself if it finds the thread moved on. */
static ALWAYS_INLINE u64 untold_since(u32 thread, u64 left, u64 back) {
    struct told *told = bpf_map_lookup_elem(&reported_until, &thread);
    if (!told || told->left != left)
        return left;
    u64 until = told->until;
    if (bpf_map_delete_elem(&reported_until, &thread) != 0)
        return left;
    return until < back ? until : back;
}

/* Keeps how long an off-CPU interval was that found no room in the ring, and by what it waited for where that is certain. */
static ALWAYS_INLINE void keep_lost(struct interval *interval, u64 woken, u64 back) {
    u64 left = interval->left;
    /* Before the note is looked for: user space leaves one and then looks whether the thread is still away. */
    *(volatile u64 *)&interval->left = 0;
    u64 from = untold_since(interval->thread, left, back);
    if (woken < from)
        woken = from;
    u32 kind = INTERVAL_STACK_LOST | (interval->state & SUM_STATE_BITS) << SUM_STATE_SHIFT;
    if (interval->flags & (INTERVAL_FROM_START | INTERVAL_SEVERAL) ||
        !add_to_sums(interval, kind, woken - from, back - woken))
        interval->unsent += back - from;
}

/* Ends an off-CPU interval. */
static ALWAYS_INLINE void end_interval(struct interval *interval, const struct off_cpu_settings *settings, u64 back) {
    u64 left = interval->left;
    u64 woken = interval->woken && interval->woken < back ? interval->woken : back;
    interval->back = back;
    int is_short = back - left < settings->least && !(interval->flags & (INTERVAL_FROM_START | INTERVAL_SEVERAL));
    if ((!is_short || !add_to_sums(interval, 0, woken - left, back - woken)) &&
        !send_interval(interval, wakeup(OUTCOME_WHOLE)))
        keep_lost(interval, woken, back);
    interval->left = 0;
}

/* As if it had run at the end of all its off-CPU interval, for as long as the scheduler says that it ran. */
static ALWAYS_INLINE u64 return_by_execution(const struct task_struct *task, const struct interval *interval, u64 now) {
    u64 ran = task_number(task, TASK_EXECUTED) - interval->executed;
    return ran < now - interval->left ? now - ran : interval->left;
}

/* Since when a thread has been on its CPU that is taken to be away: not every switch is told here, but the scheduler
 * itself knows. */
static ALWAYS_INLINE u64 unseen_return(const struct task_struct *task, struct interval *interval,
                                       const struct off_cpu_settings *settings, u64 now) {
    u64 left = interval->left;
    u64 arrivals = task_number(task, TASK_ARRIVALS) - interval->arrivals;
    /* It was taken to be away at the start and was on its CPU all the time. */
    if (arrivals == 0 && interval->flags & INTERVAL_FROM_START)
        return left;
    if (arrivals > 1)
        interval->flags |= INTERVAL_SEVERAL;
    if (arrivals == 1 && settings->behind) {
        u64 back = task_number(task, TASK_LAST_ARRIVAL) + settings->behind;
        /* The two clocks are not read at the same moment. */
        return back < left ? left : back < now ? back : now;
    }
    return return_by_execution(task, interval, now);
}

/* How long the current thread has been on a CPU since it is watched; 0 where that is not known. */
static ALWAYS_INLINE u64 time_on_cpu(u32 thread, u64 now) {
    struct interval *interval = watched(thread);
    if (!interval)
        return 0;
    if (!interval->left)
        return interval->ran + (now - interval->back);
    u32 zero = 0;
    const struct off_cpu_settings *settings = bpf_map_lookup_elem(&off_cpu_settings, &zero);
    if (!settings)
        return 0;
    return interval->ran + (now - unseen_return(bpf_get_current_task(), interval, settings, now));
}

/* Accounts for the time before a thread leaves. */
static ALWAYS_INLINE void settle(struct task_struct *task, struct interval *interval, struct off_cpu_settings *settings,
                                 u64 now) {
    if (!interval->left) {
        /* Otherwise not every switch was seen here, and `back` is not when it came back last. */
        if (task_number(task, TASK_ARRIVALS) == interval->arrivals + 1)
            settings->behind = interval->back - task_number(task, TASK_LAST_ARRIVAL);
        interval->ran += now - interval->back;
        return;
    }
    u64 back = unseen_return(task, interval, settings, now);
    interval->ran += now - back;
    if (back != interval->left)
        end_interval(interval, settings, back);
}

/* What another structure of the kernel has in a field that is a pointer; null if it has none. */
static ALWAYS_INLINE const u8 *pointer_in(const u8 *structure, enum file_field field) {
    const u8 *pointer = 0;
    bpf_probe_read_kernel(&pointer, sizeof pointer, structure + file_fields[field]);
    return pointer;
}

/* And in one that is a number of 32 bits. */
static ALWAYS_INLINE u32 number_in(const u8 *structure, enum file_field field) {
    u32 value = 0;
    bpf_probe_read_kernel(&value, sizeof value, structure + file_fields[field]);
    return value;
}

/* The file that the descriptor of the current thread refers to at this moment. */
static ALWAYS_INLINE const u8 *file_of(const struct task_struct *task, u64 descriptor) {
    const u8 *table = pointer_in(pointer_in((const u8 *)task, TASK_FILES), FILES_TABLE);
    const u8 *file = 0;
    /* The kernel takes the lower half of it. */
    u64 index = (u32)descriptor;
    if (index < number_in(table, TABLE_LENGTH))
        bpf_probe_read_kernel(&file, sizeof file, pointer_in(table, TABLE_FILES) + index * sizeof file);
    return file;
}

/* What the current thread waits for if its system call takes a descriptor. Only now is it certain: the number can be
 * another file's a moment later. */
static ALWAYS_INLINE void keep_file(const struct task_struct *task, struct interval *interval) {
    interval->file = (struct open_file){};
    u64 call = KEEP(interval->call);
    if (call >= MAX_CALLS || !(descriptor_calls[call / 64] & 1ull << call % 64))
        return;
    const u8 *file = file_of(task, interval->arguments[0]);
    if (!file)
        return;
    const u8 *inode = pointer_in(file, FILE_INODE);
    interval->file.mode = (u16)number_in(inode, INODE_MODE);
    interval->file.file_system = number_in(pointer_in(inode, INODE_SYSTEM), SYSTEM_MAGIC);
    if (interval->file.file_system == ANON_INODE_FS_MAGIC)
        bpf_probe_read_kernel(&interval->file.name, sizeof interval->file.name,
                              pointer_in(pointer_in(file, FILE_ENTRY), ENTRY_NAME));
}

/* What the current thread waits for, in the kernel's words. */
static ALWAYS_INLINE void keep_cause(struct task_struct *task, struct interval *interval, u32 state, int runnable) {
    interval->flags = runnable ? INTERVAL_RUNNABLE : 0;
    if (runnable)
        interval->woken = interval->left;
    interval->state = state;
    interval->arrivals = task_number(task, TASK_ARRIVALS);
    interval->executed = task_number(task, TASK_EXECUTED);
    const struct saved_registers *registers = bpf_task_pt_regs(bpf_get_current_task_btf());
    interval->call = registers->orig_rax;
    interval->arguments[0] = registers->rdi;
    interval->arguments[1] = registers->rsi;
    interval->arguments[2] = registers->rdx;
    if (runnable)
        interval->file = (struct open_file){};
    else
        keep_file(task, interval);
}

/* The ids of the current thread, which leaves its CPU; 0 where it is none that user space sees. */
static ALWAYS_INLINE u64 ids_of_leaving(const struct task_struct *task, u32 state) {
    if (id_source == IDS_OF_KERNEL)
        return bpf_get_current_pid_tgid();
    const u8 *numbers = numbers_of(task);
    if (numbers && !(state & TASK_DEAD))
        return ids_by_types(task, numbers);
    u64 ids = ids_of_ending(task);
    u32 id = kernel_id(task);
    if (ids && state & TASK_DEAD)
        bpf_map_delete_elem(&endings, &id);
    return ids;
}

static ALWAYS_INLINE void leave(void *context, struct task_struct *task, struct off_cpu_settings *settings, u32 state,
                                int preempted) {
    u64 ids = ids_of_leaving(task, state);
    if (id_source != IDS_OF_KERNEL && !ids)
        return;
    u32 process = ids >> 32;
    u32 thread = (u32)ids;
    if (!bpf_map_lookup_elem(&layouts, &process))
        return;
    u64 now = bpf_ktime_get_ns();
    struct interval *interval = watched(thread);
    if (!interval) {
        if (!(state & TASK_DEAD))
            report_stranger(process, thread, now);
        return;
    }
    settle(task, interval, settings, now);
    interval->back = now;
    /* Before it is away: it may be woken from then on. */
    *(volatile u64 *)&interval->woken = 0;
    *(volatile u64 *)&interval->left = now;
    if (state & TASK_DEAD) {
        interval->flags = INTERVAL_END;
        interval->stack_bytes = 0;
        /* What finds no room is found by user space where it is. */
        if (send_interval(interval, BPF_RB_NO_WAKEUP))
            bpf_map_delete_elem(&intervals, &thread);
        bpf_map_delete_elem(&reported_until, &thread);
        bpf_map_delete_elem(&threads, &thread);
        return;
    }
    keep_cause(task, interval, state, preempted || state == TASK_RUNNING);
    keep_stack(context, interval, now);
}

static ALWAYS_INLINE void come_back(struct task_struct *task, const struct off_cpu_settings *settings) {
    struct interval *interval = interval_of(task);
    if (!interval || !interval->left)
        return;
    u64 now = bpf_ktime_get_ns();
    u64 back = now;
    /* This return is not counted yet: there was another one. */
    if (task_number(task, TASK_ARRIVALS) != interval->arrivals) {
        interval->flags |= INTERVAL_SEVERAL;
        back = return_by_execution(task, interval, now);
    }
    end_interval(interval, settings, back);
}

SECTION("raw_tp/sched_switch")
int off_cpu_switch(u64 *arguments) {
    u32 zero = 0;
    struct off_cpu_settings *settings = bpf_map_lookup_elem(&off_cpu_settings, &zero);
    if (!settings || settings->is_over)
        return 0;
    leave(arguments, (struct task_struct *)arguments[1], settings, (u32)arguments[3], (int)arguments[0]);
    come_back((struct task_struct *)arguments[2], settings);
    return 0;
}

/* Runs where a wake-up is asked for (sched_waking), from which moment on the thread waits for nothing but a CPU, and where it
 * is done (sched_wakeup): until another CPU has taken note of it, milliseconds can pass on a virtual machine. Who is woken
 * while he is still leaving is not away yet for the first, but is for the second. */
SECTION("raw_tp/sched_waking")
int off_cpu_wakeup(u64 *arguments) {
    struct interval *interval = interval_of((struct task_struct *)arguments[0]);
    if (interval && interval->left && !interval->woken)
        interval->woken = bpf_ktime_get_ns();
    return 0;
}

/* Only outside of the first namespace. What another thread of this id may have left is removed. */
SECTION("raw_tp/sched_process_exit")
int off_cpu_exit(u64 *arguments) {
    const struct task_struct *task = (const struct task_struct *)arguments[0];
    u32 id = kernel_id(task);
    u64 ids = ids_by_types(task, numbers_of(task));
    u32 process = ids >> 32;
    if ((u32)ids && bpf_map_lookup_elem(&layouts, &process))
        bpf_map_update_elem(&endings, &id, &ids, BPF_ANY);
    else
        bpf_map_delete_elem(&endings, &id);
    return 0;
}

/* What user space compares with its own (`wire.rs`), and nothing else here has the compiler describe. */
const volatile struct {
    enum record_kind record_kind;
    enum off_cpu_kind off_cpu_kind;
    enum outcome outcome;
    enum interval_flags interval_flags;
    enum counter counter;
    enum id_source id_source;
    struct unregistered unregistered;
} described = {};

#endif
