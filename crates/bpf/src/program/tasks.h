/* What the kernel's own structure of a thread says of it. Where the fields lie is set when the programs are loaded
 * (`task_layout.rs`). */
#ifndef PROFILER_TASKS_H
#define PROFILER_TASKS_H

#include "ids.h"
#include "records.h"

enum task_field { TASK_PID, TASK_EXECUTED, TASK_ARRIVALS, TASK_LAST_ARRIVAL, TASK_FIELDS };
const volatile u32 task_fields[TASK_FIELDS] = {};

/* States of a thread (include/linux/sched.h). */
enum { TASK_RUNNING = 0, TASK_DEAD = 0x80 };

/* The registers of user space on x86-64, in the order in which the kernel saves them (`struct pt_regs`). */
struct saved_registers {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    s64 orig_rax;
};

/* The ids of threads of registered processes that are ending, by the kernel's own id: from their exit until they leave
 * their CPU for the last time. Only used outside of the initial PID namespace, where a thread loses its ids in between, while it
 * may still wait for a CPU. */
struct {
    MAP_NUMBER(type, BPF_MAP_TYPE_HASH);
    MAP_NUMBER(max_entries, MAX_THREADS);
    MAP_NUMBER(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, u32);
    MAP_TYPE(value, u64);
} endings SECTION(".maps");

/* The CPU time that the scheduler has counted of a thread, how often it was put on a CPU, or when it was last. */
static ALWAYS_INLINE u64 task_number(const struct task_struct *task, enum task_field field) {
    u64 value = 0;
    bpf_probe_read_kernel(&value, sizeof value, (const u8 *)task + task_fields[field]);
    return value;
}

/* The id of a thread in the initial PID namespace. */
static ALWAYS_INLINE u32 kernel_id(const struct task_struct *task) {
    u32 id = 0;
    bpf_probe_read_kernel(&id, sizeof id, (const u8 *)task + task_fields[TASK_PID]);
    return id;
}

/* The ids of a thread that is ending; 0 if its process is not registered. */
static ALWAYS_INLINE u64 ids_of_ending(const struct task_struct *task) {
    u32 id = kernel_id(task);
    u64 *ids = bpf_map_lookup_elem(&endings, &id);
    return ids ? *ids : 0;
}

/* The id of a thread in user space's PID namespace; 0 if the thread is not visible there. */
static ALWAYS_INLINE u32 task_id(const struct task_struct *task) {
    if (id_source == IDS_OF_KERNEL)
        return kernel_id(task);
    const u8 *numbers = numbers_of(task);
    return numbers ? own_number(numbers) : (u32)ids_of_ending(task);
}

/* The ids of the current thread, which leaves its CPU; 0 if it is not visible in user space's PID namespace. */
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

#endif
