/* The ids of threads and processes in user space's own PID namespace.
 *
 * In the initial namespace they are the kernel's own ids. In any other one (a container) they are not: a thread has an id in its
 * own namespace and in each ancestor of it (`struct pid`, here its numbers), and equal numbers of different namespaces are
 * different threads. A thread that is not visible in the namespace has the id 0, which no thread has. */
#ifndef PROFILER_IDS_H
#define PROFILER_IDS_H

#include "bpf.h"

/* How they are found: set when the program is loaded (`ids.rs`), so that the verifier leaves out the other ways. */
enum id_source {
    /* They are the kernel's own. */
    IDS_OF_KERNEL,
    /* A helper returns those of the current thread, if it is in the namespace itself and not in a descendant. */
    IDS_BY_HELPER,
    /* They are read from the kernel's structures, of any thread that is visible in the namespace. */
    IDS_BY_TYPES,
};
const volatile u32 id_source = IDS_OF_KERNEL;

/* The namespace, as the helper asks for it. */
const volatile u64 namespace_device = 0;
const volatile u64 namespace_inode = 0;

/* Where the fields lie: of a thread its numbers, and the signals of its process, which have the process's numbers; of numbers the
 * level of the innermost namespace, and the numbers themselves, one for each namespace from the initial one on. */
enum id_field { TASK_NUMBERS, TASK_SIGNAL, SIGNAL_NUMBERS, NUMBERS_LEVEL, NUMBERS_EACH, ID_FIELDS };
const volatile u32 id_fields[ID_FIELDS] = {};

/* The namespace itself and its level, as `find_namespace` found them: only the kernel knows them. */
const void *namespace_address = 0;
u32 namespace_level = 0;

struct task_struct;

/* A number, and the namespace in which it is one (`struct upid`). */
struct upid {
    u32 number;
    u32 padding;
    const void *namespace;
};

struct pidns_info {
    u32 thread;
    u32 process;
};

static ALWAYS_INLINE const u8 *kernel_pointer(const void *structure, u32 offset) {
    const u8 *pointer = 0;
    bpf_probe_read_kernel(&pointer, sizeof pointer, (const u8 *)structure + offset);
    return pointer;
}

static ALWAYS_INLINE u32 level_of(const u8 *numbers) {
    u32 level = 0;
    bpf_probe_read_kernel(&level, sizeof level, numbers + id_fields[NUMBERS_LEVEL]);
    return level;
}

static ALWAYS_INLINE struct upid number_at_level(const u8 *numbers, u32 level) {
    struct upid number = {};
    const u8 *each = numbers + id_fields[NUMBERS_EACH];
    bpf_probe_read_kernel(&number, sizeof number, each + (u64)level * sizeof number);
    return number;
}

/* Which of these numbers is the one in our namespace; 0 if there is none. */
static ALWAYS_INLINE u32 own_number(const u8 *numbers) {
    /* There are no numbers beyond the innermost one. */
    if (level_of(numbers) < namespace_level)
        return 0;
    struct upid number = number_at_level(numbers, namespace_level);
    return number.namespace == namespace_address ? number.number : 0;
}

/* The numbers of a thread; null once it has lost them at its end, before it leaves its CPU for the last time. */
static ALWAYS_INLINE const u8 *numbers_of(const struct task_struct *task) {
    return kernel_pointer(task, id_fields[TASK_NUMBERS]);
}

/* The ids of any thread, from the structures, in the form of `bpf_get_current_pid_tgid`. Of a thread that has lost its numbers only
 * the process is known, as long as that has other threads. */
static ALWAYS_INLINE u64 ids_by_types(const struct task_struct *task, const u8 *numbers) {
    u32 thread = numbers ? own_number(numbers) : 0;
    if (numbers && !thread)
        return 0;
    const u8 *of_process = kernel_pointer(kernel_pointer(task, id_fields[TASK_SIGNAL]), id_fields[SIGNAL_NUMBERS]);
    u32 process = of_process == numbers ? thread : own_number(of_process);
    return (u64)process << 32 | thread;
}

static ALWAYS_INLINE u64 ids_by_helper(void) {
    struct pidns_info ids = {};
    if (bpf_get_ns_current_pid_tgid(namespace_device, namespace_inode, &ids, sizeof ids) != 0)
        return 0;
    return (u64)ids.process << 32 | ids.thread;
}

/* The ids of the current thread: its process above, itself below. */
static ALWAYS_INLINE u64 current_ids(void) {
    if (id_source == IDS_BY_TYPES) {
        const struct task_struct *task = bpf_get_current_task();
        return ids_by_types(task, numbers_of(task));
    }
    if (id_source == IDS_BY_HELPER)
        return ids_by_helper();
    return bpf_get_current_pid_tgid();
}

/* Finds the namespace of user space, which runs this itself; returns whether it did. */
SECTION("raw_tp/find_namespace")
int find_namespace(u64 *arguments) {
    (void)arguments;
    const u8 *numbers = numbers_of(bpf_get_current_task());
    namespace_level = level_of(numbers);
    namespace_address = number_at_level(numbers, namespace_level).namespace;
    return namespace_address != 0;
}

#endif
