/* What user space and the program tell each other. `layout.rs` and `records.rs` have the same structures; loading
 * compares the sizes of those in maps. */
#ifndef PROFILER_RECORDS_H
#define PROFILER_RECORDS_H

#include "bpf.h"

/* More frames than this are left out at the root. */
#define MAX_FRAMES 4096
/* More frames of the kernel than this are left out at the root of its part. It is what the kernel itself stops at, unless
 * it is told otherwise (kernel.perf_event_max_stack). */
#define MAX_KERNEL_FRAMES 127
/* The most bytes of a frame, a thread state and a code object's head that are looked at. */
#define FRAME_BYTES 128
#define THREAD_BYTES 384
#define HEAD_BYTES 128
/* The most bytes before a frame that are copied with it, and never beyond its page: what is on that page is in memory
 * if the frame is. */
#define WINDOW_BYTES 2048
#define PAGE_BYTES 4096
/* Within so many bytes the fields of a GIL and the count of code objects are copied at once. */
#define GIL_BYTES 512
/* Strings and line tables beyond these are read by user space, which then has to prove them itself. */
#define OBJECT_BYTES 192
#define NAME_BYTES 256
#define FILE_BYTES 384
#define LINE_TABLE_BYTES 8192
#define MAX_PROCESSES 1024
#define MAX_THREADS 65536
/* Slots of the table of code objects that were met: a collision only has them looked at and sent again. */
#define CODE_SLOTS 65536
/* Frames are identified so many at a time, from the leaf on. */
#define GROUP 4
/* Groups whose hashes each CPU has sent and need not send again: buckets of so many marks. */
#define SENT_BUCKETS 2048
#define SENT_WAYS 4
/* No interpreter is started in less than these nanoseconds; sampled at 1 kHz, a busy process is looked at more often. */
#define MAX_LOOK_GAP 3000000
#define MAX_CPUS 512
/* Ticks of one series differ by less than 1/EARLY_PART of their period. An earlier tick belongs to a new series. */
#define EARLY_PART 8
#define NO_OFFSET 0xffffffffu

/* How a process's CPython is laid out: everything the walk needs. Offsets that do not exist are NO_OFFSET. */
struct layout {
    /* PyThreadState: bytes to copy; where it names its interpreter and its thread, which prove it. */
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
    /* Which of the `looks` is this process's. */
    u32 place;
    /* PyThreadState: the next one of its interpreter. */
    u32 thread_next;
};

/* What the program keeps of a process: its count of code objects as it was last found, when that was, and since when it
 * was found so, without a gap. Alone on a line of the CPU's caches. */
struct look {
    u64 code_count;
    u64 looked;
    u64 looked_since;
    u64 padding[5];
};

/* A thread state, and what must stand in it; the addresses of its GIL's fields, of its interpreter's count of code objects
 * and of its interpreter's pointer to the first of its thread states, 0 where there are none. */
struct thread_state {
    u64 state;
    u64 interpreter;
    u64 thread_id;
    u64 gil_last_holder;
    u64 gil_locked;
    u64 code_count;
    u64 first_state;
};

/* So many thread states of an interpreter are searched, the youngest first, for the one of a thread that has a new one. */
#define SEARCHED_STATES 8

/* A thread that runs in several interpreters has several thread states, the youngest first; one that runs no Python
 * has none. */
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
    /* User space knows no thread state of this thread. */
    OUTCOME_UNKNOWN_THREAD = 2,
    /* The thread state is another's by now. */
    OUTCOME_CHANGED_THREAD = 3,
    /* A page was not in memory, or a pointer is none. */
    OUTCOME_UNREADABLE = 4,
    /* User space knows that this thread has no thread state. */
    OUTCOME_NO_PYTHON = 5,
};

/* What a frame says. `code` is null for a shim; what a version does not have is 0. `head_hash` is 0 where it is what this
 * CPU has sent of that code object under the same proof. */
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

/* A stack of the thread that ran. Only `frame_count` frames are sent, and right behind them the frames of the kernel. */
struct stack_record {
    u32 kind;
    u32 outcome;
    u64 time;
    /* For how many nanoseconds of this CPU the stack stands: since the tick before. */
    u64 weight;
    u32 process;
    u32 thread;
    u64 thread_state;
    /* How long the program took so far, in nanoseconds. */
    u32 took;
    u32 frame_count;
    /* 1: the thread held its GIL. */
    u16 holds_gil;
    /* How many frames of the kernel there are, below 0 where they could not be taken. */
    s16 kernel_frame_count;
    /* For how many nanoseconds before this the kernel let the clock rest, as it had ticked too often: those are not
     * in `weight`. */
    u32 rested;
    /* Where the outermost frame says that its caller is. */
    u64 end;
    /* How long the thread has been on a CPU in all since it is watched; 0 where that is not known. */
    u64 ran;
    /* How many ticks of this CPU's clock did not come between the one before and this, and by how many nanoseconds
     * this one came after its time. */
    u32 missed;
    u32 behind;
    /* What all code objects were met under that have one hash as long as it stands; 0 where nothing proves that. */
    u64 proof;
    /* The period of this CPU's clock, in nanoseconds. */
    u32 period;
    u32 spare;
    u8 thread_copy[THREAD_BYTES];
    struct frame_copy frames[MAX_FRAMES];
    /* Room for those of the kernel where all of these are used: program counters, leaf first. */
    u64 kernel_frames[MAX_KERNEL_FRAMES];
};

/* What the names of a code object are made of. Only as much of the line table is sent as there is. */
struct names_record {
    u32 kind;
    u32 process;
    u64 code;
    u64 head_hash;
    u64 name;
    u64 qualname;
    u64 filename;
    u64 line_table;
    /* How many bytes of each were there. */
    u32 object_copied;
    u32 name_copied;
    u32 qualname_copied;
    u32 filename_copied;
    u32 line_table_copied;
    u32 padding;
    u8 object_copy[OBJECT_BYTES];
    u8 name_copy[NAME_BYTES];
    u8 qualname_copy[NAME_BYTES];
    u8 filename_copy[FILE_BYTES];
    u8 line_table_copy[LINE_TABLE_BYTES];
};

/* Losses of a full ring are counted for this number of threads, those with the most recent losses. */
#define MAX_LOSING_THREADS 8192
struct thread_loss {
    u64 count;
    /* For how many nanoseconds the samples among them stand. */
    u64 weight;
};

/* Counts that user space reads: what was lost before it could be told otherwise. */
enum counter {
    COUNTER_RING_FULL,
    COUNTER_NAMES_LOST,
    COUNTERS
};

#endif
