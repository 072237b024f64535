/* The end of an off-CPU interval: when the thread came back, and whether the interval is sent or added to a sum. */
#ifndef PROFILER_INTERVAL_END_H
#define PROFILER_INTERVAL_END_H

#include "intervals.h"
#include "tasks.h"

/* Adds an interval to a sum instead of sending it: it is too short, or `kind` says that it found no room in the ring. Returns
 * whether there was room for the sum. */
static ALWAYS_INLINE int add_to_sums(const struct interval *interval, u32 kind, u64 waited, u64 queued) {
    struct sum_key key = {
        .thread = interval->thread,
        .flags = (interval->flags & INTERVAL_RUNNABLE) | kind,
        .call = interval->call,
        .argument = interval->arguments[0],
        .file = interval->file,
    };
    if (key.flags & INTERVAL_RUNNABLE) {
        /* It did not wait for the system call that it was in. */
        key.call = -1;
        key.argument = 0;
        key.file = (struct open_file){};
    } else if (key.file.mode) {
        /* The number of the descriptor does not matter. */
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
    /* Only returns of this thread write here, but user space reads and removes. */
    __sync_fetch_and_add(&sum->intervals, 1);
    __sync_fetch_and_add(&sum->waited, waited);
    __sync_fetch_and_add(&sum->queued, queued);
    return 1;
}

/* Since when user space has not reported an interval that is over. Who removes the entry has used it: user
 * space removes it itself if it finds that the interval is over. */
static ALWAYS_INLINE u64 unreported_since(u32 thread, u64 left, u64 back) {
    struct reported *reported = bpf_map_lookup_elem(&reported_until, &thread);
    if (!reported || reported->left != left)
        return left;
    u64 until = reported->until;
    if (bpf_map_delete_elem(&reported_until, &thread) != 0)
        return left;
    return until < back ? until : back;
}

/* Keeps the length of an interval that found no room in the ring, by what it waited for if that is certain. */
static ALWAYS_INLINE void keep_lost(struct interval *interval, u64 woken, u64 back) {
    u64 left = interval->left;
    /* Before `unreported_since`: user space adds an entry there and then checks that the thread is still off the CPU. */
    *(volatile u64 *)&interval->left = 0;
    u64 from = unreported_since(interval->thread, left, back);
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

/* When a thread came back, if all of the CPU time that the scheduler has counted since it left lies at the end of its interval. */
static ALWAYS_INLINE u64 return_by_execution(const struct task_struct *task, const struct interval *interval, u64 now) {
    u64 ran = task_number(task, TASK_EXECUTED) - interval->executed;
    return ran < now - interval->left ? now - ran : interval->left;
}

/* When a thread came back whose return was not seen here: not every switch reaches the program, but the scheduler counts all. */
static ALWAYS_INLINE u64 unseen_return(const struct task_struct *task, struct interval *interval,
                                       const struct off_cpu_settings *settings, u64 now) {
    u64 left = interval->left;
    u64 arrivals = task_number(task, TASK_ARRIVALS) - interval->arrivals;
    /* It was assumed to be off the CPU when it was registered, and was on its CPU all the time. */
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

/* The CPU time of the current thread since it is watched; 0 if that is not known. */
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
        /* Otherwise a switch was not seen here, and `back` is not when the thread came back last. */
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

#endif
