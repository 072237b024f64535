/* What threads do while they are off the CPU: for how long, what they wait for, and their Python stacks.
 *
 * A stack is taken when the thread leaves its CPU, which is the last moment at which its memory can be read, and is kept
 * with the thread. The length of the interval is known when the thread comes back; only then is the stack sent, if the interval
 * was long enough. Shorter intervals are summed by what was waited for. All of this runs inside the scheduler, at each
 * context switch of the whole machine: threads that are not registered must cost next to nothing. */
#ifndef PROFILER_OFF_CPU_H
#define PROFILER_OFF_CPU_H

#include "interval_end.h"
#include "stack.h"

/* Takes the stack of the current thread and keeps it, or sends it if it is too large to be kept. */
static ALWAYS_INLINE void keep_stack(void *context, struct interval *interval, u64 now) {
    interval->stack_bytes = 0;
    u32 cpu = bpf_get_smp_processor_id();
    struct workspace *workspace = bpf_map_lookup_elem(&workspaces, &cpu);
    if (!workspace)
        return;
    if (!recognise(workspace, (u64)interval->process << 32 | interval->thread))
        return;
    struct stack_record *record = &workspace->record;
    record->weight = 0;
    record->rested = 0;
    record->missed = 0;
    record->behind = 0;
    take_stack(context, workspace, RECORD_DEEP_STACK, now, BY_HELPER);
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

/* Keeps what the current thread waits for: the scheduler's state, the system call and its arguments. */
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
        keep_file(task, interval->call, interval->arguments[0], &interval->file);
}

/* The entry of a thread; null if it is not watched. */
static ALWAYS_INLINE struct interval *interval_of(struct task_struct *task) {
    u32 thread = task_id(task);
    if (id_source != IDS_OF_KERNEL && !thread)
        return 0;
    return watched(thread);
}

static ALWAYS_INLINE void leave(void *context, struct task_struct *task, struct off_cpu_settings *settings, u32 state,
                                int preempted) {
    u64 ids = ids_of_leaving(task, state);
    if (id_source != IDS_OF_KERNEL && !ids)
        return;
    u32 process = ids >> 32;
    u32 thread = (u32)ids;
    const struct process *registered = bpf_map_lookup_elem(&processes, &process);
    if (!registered)
        return;
    u64 now = bpf_ktime_get_ns();
    struct interval *interval = watched(thread);
    if (!interval) {
        if (registered->runtimes && !(state & TASK_DEAD))
            report_unregistered(process, thread, now);
        return;
    }
    settle(task, interval, settings, now);
    interval->back = now;
    /* `woken` before `left`: the thread may be woken as soon as it is off the CPU. */
    *(volatile u64 *)&interval->woken = 0;
    *(volatile u64 *)&interval->left = now;
    if (state & TASK_DEAD) {
        interval->flags = INTERVAL_END;
        interval->stack_bytes = 0;
        /* If the ring has no room for it, user space finds the end in the map. */
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
    /* The scheduler has not counted this return yet, so there was another one. */
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

/* Runs where a wakeup is requested (sched_waking), from which moment on the thread waits for nothing but a CPU, and where it
 * is done (sched_wakeup): until another CPU has handled it, milliseconds can pass on a virtual machine. A thread that is woken
 * while it is still leaving is on its CPU at the first, and off it at the second. */
SECTION("raw_tp/sched_waking")
int off_cpu_wakeup(u64 *arguments) {
    struct interval *interval = interval_of((struct task_struct *)arguments[0]);
    if (interval && interval->left && !interval->woken)
        interval->woken = bpf_ktime_get_ns();
    return 0;
}

/* Only attached outside of the initial PID namespace. Removes what another thread with this id may have left. */
SECTION("raw_tp/sched_process_exit")
int off_cpu_exit(u64 *arguments) {
    const struct task_struct *task = (const struct task_struct *)arguments[0];
    u32 id = kernel_id(task);
    u64 ids = ids_by_types(task, numbers_of(task));
    u32 process = ids >> 32;
    if ((u32)ids && bpf_map_lookup_elem(&processes, &process))
        bpf_map_update_elem(&endings, &id, &ids, BPF_ANY);
    else
        bpf_map_delete_elem(&endings, &id);
    return 0;
}

#endif
