/* The ids of threads and processes as user space knows them: those of its own PID namespace.
 *
 * In the first namespace they are those that the kernel itself goes by. In any other one (a container) the kernel's own ids
 * are another's there: a thread has an id in its own namespace and in each that this one lies in, and it is only by the
 * namespace that the numbers of two are told apart. Who is not visible from there has the id 0, which no thread has. */
#ifndef PROFILER_IDS_H
#define PROFILER_IDS_H

#include "bpf.h"

/* By what they are found: told when this is loaded (`ids.rs`), so that the verifier leaves out the other ways. */
enum id_source {
    /* They are the kernel's own. */
    IDS_OF_KERNEL,
    /* A helper tells those of the current thread, if that is in the namespace itself and in none within. */
    IDS_BY_HELPER,
    /* They are read from the kernel's structures, of any thread that is visible there. */
    IDS_BY_TYPES,
};
const volatile u32 id_source = IDS_OF_KERNEL;

/* The namespace, as the helper asks for it. */
const volatile u64 namespace_device = 0;
const volatile u64 namespace_inode = 0;

/* Where the kernel's structures have what is looked at: of a thread its numbers, and the signals of its process, which
 * know the process's numbers; of numbers how deep the innermost namespace lies, and the numbers themselves, one for each
 * namespace from the first one on. */
enum id_field { TASK_NUMBERS, TASK_SIGNAL, SIGNAL_NUMBERS, NUMBERS_LEVEL, NUMBERS_EACH, ID_FIELDS };
const volatile u32 id_fields[ID_FIELDS] = {};

/* The namespace itself and how deep it lies, as `find_namespace` found them: nobody but the kernel knows that. */
const void *namespace_address = 0;
u32 namespace_level = 0;

struct task_struct;

/* A number, and the namespace in which it is one (`struct upid`). */
struct number_somewhere {
    u32 number;
    u32 padding;
    const void *namespace;
};

struct ids_here {
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

static ALWAYS_INLINE struct number_somewhere number_at_level(const u8 *numbers, u32 level) {
    struct number_somewhere number = {};
    const u8 *each = numbers + id_fields[NUMBERS_EACH];
    bpf_probe_read_kernel(&number, sizeof number, each + (u64)level * sizeof number);
    return number;
}

/* Which of these numbers is that in our namespace; 0 if there is none. */
static ALWAYS_INLINE u32 number_here(const u8 *numbers) {
    /* Behind the innermost one there is something else. */
    if (level_of(numbers) < namespace_level)
        return 0;
    struct number_somewhere number = number_at_level(numbers, namespace_level);
    return number.namespace == namespace_address ? number.number : 0;
}

/* The numbers of a thread; null once it has none: it loses them at its end, before it leaves its CPU for the last time. */
static ALWAYS_INLINE const u8 *numbers_of(const struct task_struct *task) {
    return kernel_pointer(task, id_fields[TASK_NUMBERS]);
}

/* The ids of any thread, by the structures, as the kernel tells those of the current one. Of one that has no numbers any more
 * the process alone is known, as long as that has other threads. */
static ALWAYS_INLINE u64 ids_by_types(const struct task_struct *task, const u8 *numbers) {
    u32 thread = numbers ? number_here(numbers) : 0;
    if (numbers && !thread)
        return 0;
    const u8 *of_process = kernel_pointer(kernel_pointer(task, id_fields[TASK_SIGNAL]), id_fields[SIGNAL_NUMBERS]);
    u32 process = of_process == numbers ? thread : number_here(of_process);
    return (u64)process << 32 | thread;
}

static ALWAYS_INLINE u64 ids_by_helper(void) {
    struct ids_here ids = {};
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

/* Finds the namespace of who has this run, which is user space itself; returns whether it did. */
SECTION("raw_tp/find_namespace")
int find_namespace(u64 *arguments) {
    (void)arguments;
    const u8 *numbers = numbers_of(bpf_get_current_task());
    namespace_level = level_of(numbers);
    namespace_address = number_at_level(numbers, namespace_level).namespace;
    return namespace_address != 0;
}

#endif
