/* The structures that user space and the program exchange. `layout.rs` and `wire.rs` have the same ones; a test compares
 * them with the object's type information. */
#ifndef PROFILER_RECORDS_H
#define PROFILER_RECORDS_H

#include "bpf.h"

/* More frames than this are left out at the root. */
#define MAX_FRAMES 4096
/* More frames of the kernel than this are left out at the root of its part. It is what the kernel itself stops at, unless
 * kernel.perf_event_max_stack says otherwise. */
#define MAX_KERNEL_FRAMES 127
/* The most bytes of a frame, a thread state and a code object's head that are copied. */
#define FRAME_BYTES 128
#define THREAD_BYTES 384
#define HEAD_BYTES 128
/* The most bytes before a frame that are copied with it. They never reach beyond its page, which is in memory if the frame
 * is. */
#define WINDOW_BYTES 2048
#define PAGE_BYTES 4096
/* The most bytes that are copied at once for the fields of a GIL and the count of code objects. */
#define GIL_BYTES 512
/* User space reads longer strings and line tables itself, and then has to verify them itself. */
#define OBJECT_BYTES 192
#define NAME_BYTES 256
#define FILE_BYTES 384
#define LINE_TABLE_BYTES 8192
#define MAX_PROCESSES 1024
/* A process may have several runtimes: copies of CPython, perhaps of different versions. A power of two. */
#define MAX_RUNTIMES 2
#define MAX_THREADS 65536
/* Slots of the table of code objects that were met: after a collision they are read and sent again. */
#define CODE_SLOTS 65536
/* Frames are identified so many at a time, from the leaf on. */
#define GROUP 4
/* The table of groups whose hashes each CPU has sent and need not send again: buckets, and marks in each. */
#define SENT_BUCKETS 2048
#define SENT_WAYS 4
/* No interpreter starts in less than these nanoseconds; sampled at 1 kHz, a busy process is checked more often. */
#define MAX_CHECK_GAP 3000000
#define MAX_CPUS 512
/* Ticks of one series differ by less than 1/EARLY_PART of their period. An earlier tick belongs to a new series. */
#define EARLY_PART 8
#define NO_OFFSET 0xffffffffu

/* The layout of a CPython: everything that the walk needs. Offsets that do not exist are NO_OFFSET. */
struct layout {
    /* PyThreadState: bytes to copy; where it has its interpreter and its thread, which identify it. */
    u32 thread_size;
    u32 thread_interpreter;
    u32 thread_id;
    u32 thread_frame;
    u32 cframe_current_frame;
    u32 thread_base_frame;
    /* The frame: its bytes; its caller; its code, of which `code_mask` leaves the address; its instruction. */
    u32 frame_size;
    u32 frame_previous;
    u32 frame_code;
    u32 frame_instruction;
    u32 frame_owner;
    u32 frame_is_entry;
    /* Which copy of its bytecode it runs, in builds without a GIL. */
    u32 frame_bytecode_copy;
    /* Bit N: an owner of N is a shim, which has no code object. */
    u32 shim_owners;
    /* The code object: the bytes that identify it, and its names. */
    u32 head_start;
    u32 head_length;
    u32 code_name;
    u32 code_qualname;
    u32 code_filename;
    u32 code_line_table;
    u32 bytes_length;
    /* 1: names are sent with every sample, as one address has had different ones. */
    u32 always_send_names;
    u64 code_mask;
    /* How many bytes before a frame are worth copying with it, as its callers may lie there. */
    u32 frames_before;
    /* The bytes of a count of code objects. */
    u32 code_count_size;
    /* The index of its epoch in `code_epochs`. */
    u32 epoch_index;
    /* PyThreadState: the next one of its interpreter. */
    u32 thread_next;
};

/* A registered process, with the layouts of its runtimes: one lookup finds all of them. A process without Python has none. */
struct process {
    /* Bit N: runtime N has a layout. */
    u32 runtimes;
    u32 padding;
    struct layout layouts[MAX_RUNTIMES];
};

/* A time in which an interpreter frees or makes no code object: its count of code objects, when that was checked last, and since
 * when it was found unchanged, without a gap between two checks. It has a line of the CPU's caches to itself. */
struct code_epoch {
    u64 count;
    u64 checked;
    u64 since;
    u64 padding[5];
};

/* A thread state, with the interpreter and the thread that must stand in it; the addresses of its GIL's fields, of its
 * interpreter's count of code objects and of its interpreter's pointer to the first of its thread states, 0 if it has none. */
struct thread_state {
    u64 state;
    u64 interpreter;
    u64 thread_id;
    u64 gil_last_holder;
    u64 gil_locked;
    u64 code_count;
    u64 first_state;
    /* The runtime that it is of, by its number in the process. */
    u64 runtime;
};

/* So many thread states of an interpreter are searched, the youngest first, for the one of a thread that has a new one. */
#define SEARCHED_STATES 8

/* A thread that runs in several interpreters or runtimes has several thread states, the youngest first; one that runs no
 * Python has none. */
#define MAX_STATES 4
struct thread {
    u32 count;
    u32 padding;
    struct thread_state states[MAX_STATES];
};

enum record_kind { RECORD_STACK = 1, RECORD_NAMES = 2 };

enum outcome {
    OUTCOME_WHOLE = 0,
    /* The root is missing: there were more frames than MAX_FRAMES. */
    OUTCOME_TRUNCATED = 1,
    /* The thread is not registered. */
    OUTCOME_UNKNOWN_THREAD = 2,
    /* The thread state belongs to another thread by now. */
    OUTCOME_CHANGED_THREAD = 3,
    /* A page was not in memory, or a pointer is invalid. */
    OUTCOME_UNREADABLE = 4,
    /* The thread is registered without a thread state. */
    OUTCOME_NO_PYTHON = 5,
};

/* The fields of a frame. `code` is null for a shim; fields that a version does not have are 0. `head_hash` is 0 if this CPU
 * has sent it before, of the same code object and under the same proof. */
struct frame_copy {
    u64 address;
    u64 code;
    u64 head_hash;
    u64 instruction;
    u32 bytecode_copy;
    u8 owner;
    u8 is_entry;
    u16 padding;
};

/* The stack of the thread that ran. Only `frame_count` frames are sent, followed by the frames of the kernel. */
struct stack_record {
    u32 kind;
    u32 outcome;
    u64 time;
    /* The time of this CPU that the stack stands for, in nanoseconds: since the tick before. */
    u64 weight;
    u32 process;
    u32 thread;
    u64 thread_state;
    /* How long the program took so far, in nanoseconds. */
    u32 took;
    u32 frame_count;
    /* 1: the thread held its GIL. */
    u16 holds_gil;
    /* The number of frames of the kernel; below 0 if they could not be taken. */
    s16 kernel_frame_count;
    /* For how many nanoseconds before this the kernel had throttled the clock: they are not in `weight`. */
    u32 rested;
    /* What the outermost frame has as its caller. */
    u64 end;
    /* The CPU time of the thread since it is watched; 0 if that is not known. */
    u64 ran;
    /* How many ticks of this CPU's clock did not come between the one before and this, and by how many nanoseconds
     * this one was late. */
    u32 missed;
    u32 behind;
    /* Code objects that are met under the same proof have the same hash; 0 if there is no proof of that. */
    u64 proof;
    /* The period of this CPU's clock, in nanoseconds. */
    u32 period;
    /* The runtime that the thread state is of. */
    u32 runtime;
    u8 thread_copy[THREAD_BYTES];
    struct frame_copy frames[MAX_FRAMES];
    /* Room for the frames of the kernel if all of the others are used: program counters, leaf first. */
    u64 kernel_frames[MAX_KERNEL_FRAMES];
};

/* The names of a code object. Only the used part of the line table is sent. */
struct names_record {
    u32 kind;
    u32 process;
    u64 code;
    u64 head_hash;
    u64 name;
    u64 qualname;
    u64 filename;
    u64 line_table;
    /* How many bytes of each were in memory. */
    u32 object_copied;
    u32 name_copied;
    u32 qualname_copied;
    u32 filename_copied;
    u32 line_table_copied;
    /* The runtime that the code object is of. */
    u32 runtime;
    u8 object_copy[OBJECT_BYTES];
    u8 name_copy[NAME_BYTES];
    u8 qualname_copy[NAME_BYTES];
    u8 filename_copy[FILE_BYTES];
    u8 line_table_copy[LINE_TABLE_BYTES];
};

/* The most threads of which records are counted that found no room in the ring: those with the most recent losses. */
#define MAX_LOSING_THREADS 8192
struct thread_loss {
    u64 count;
    /* The time that the samples among them stand for, in nanoseconds. */
    u64 weight;
};

/* The most threads without Python whose ticks are counted: those that ticked last. */
#define MAX_NATIVE_THREADS 16384
struct native_ticks {
    /* The instants of the first tick since the thread has this entry, and of the last. The first identifies the entry. */
    u64 first;
    u64 last;
    u64 ticks;
    /* The CPU time that they stand for, in nanoseconds, by the rules for a sample: see `share_of_tick`. */
    u64 weight;
    /* How many ticks came late, and for how long the kernel had throttled the clock, which is part of `weight`. */
    u64 late;
    u64 rested;
};

/* What user space sets for all programs. */
struct settings {
    /* How often registrations have been changed. */
    u64 generation;
    /* Ticks of threads without Python are not counted after this instant; 0 for no end. */
    u64 end;
};

/* Counts that user space reads. */
enum counter {
    COUNTER_RING_FULL,
    COUNTER_NAMES_LOST,
    /* All ticks of threads without Python, and their weight. */
    COUNTER_NATIVE_TICKS,
    COUNTER_NATIVE_WEIGHT,
    COUNTERS
};

#endif
