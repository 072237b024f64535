/* The CPU time that a tick of a CPU's clock stands for, and the ticks that were due before it and did not come. */
#ifndef PROFILER_TICKS_H
#define PROFILER_TICKS_H

#include "records.h"

/* A tick is punctual if it is not later than this, nor than 1/PUNCTUAL_PART of its period. */
#define PUNCTUAL 100000
#define PUNCTUAL_PART 8
/* The most periods that a tick stands for: for some ticks that came late, but not for the time for which a virtual machine
 * did not get its CPU, in which no thread ran. */
#define MAX_TICKS_OF_A_SAMPLE 4

/* The state of a CPU's clock. It has a line of the CPU's caches to itself. */
struct clock {
    /* What the perf event had counted when it was read last, and for how long the kernel had throttled it. */
    u64 counter;
    u64 throttled;
    /* When the last tick was due, and when it came. */
    u64 due;
    u64 last;
    /* How many ticks met a registered process. */
    u64 events;
    /* The period of the last tick, and when it was set. */
    u64 period;
    u64 change;
    u64 padding;
};

/* The period of a CPU's clock, and the instant at which user space had set it; 0 while it does so. Between two
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

/* Computes how many ticks were due and did not come before this one at `now`, and how late this one is.
 *
 * The kernel's timer is periodic: a late tick does not delay the next, and ticks that are due meanwhile never come
 * (`hrtimer_forward`). The kernel does not say when a tick is due; the earliest ticks are taken to be on time. */
static ALWAYS_INLINE void count_missed(struct clock *clock, struct stack_record *record, u64 period, u64 now) {
    s64 since = now - clock->due;
    u64 due_ticks = since > 0 && period ? ((u64)since + period / EARLY_PART) / period : 0;
    u64 due = clock->due + due_ticks * period;
    /* It came before the next one could be due, so the timer was restarted since; or earlier than ever. */
    if (due_ticks == 0 || now < due)
        due = now;
    clock->due = due;
    record->missed = due_ticks > 1 ? (u32)(due_ticks - 1) : 0;
    record->behind = (u32)(now - due);
}

/* Whether a tick came on time. Then its clock was not throttled since the one before, or for less than the tolerance. */
static ALWAYS_INLINE int is_punctual(u64 since, u64 period) {
    u64 tolerance = period / EARLY_PART;
    return since + tolerance >= period && since <= period + tolerance;
}

/* The same for the first tick after a change of the period, `since` after the last tick of a clock of period `before`. The change
 * restarted the timer, so the next tick was due one period later. Throttling came before the change, which ends it. If besides
 * more than one period of the old clock had passed before the change, the CPU was idle then and did not tick: half a period of
 * that time counts, which is the average time between a tick and a change. */
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

/* The weight of a tick that does not come on time: the time since the one before, less that for which the clock was throttled,
 * which only the perf event knows. */
static ALWAYS_INLINE void weigh_by_clock(struct perf_event_context *context, struct clock *clock,
                                         struct stack_record *record, u64 since, u64 now) {
    struct perf_event_value value = {};
    bpf_perf_prog_read_value(context, &value, sizeof value);
    /* An event that has counted less is a new one: the CPU was offline. */
    if (value.counter < clock->counter)
        clock->throttled = clock->due = 0;
    u64 throttled = value.enabled - value.counter;
    u64 rested = throttled > clock->throttled ? throttled - clock->throttled : 0;
    record->weight = !clock->due ? value.counter : since > rested ? since - rested : 0;
    record->rested = rested < ~0u ? (u32)rested : ~0u;
    clock->counter = value.counter;
    clock->throttled = throttled;
    /* The timer restarts after throttling. */
    if (clock->due == 0 || rested > clock->period / 2)
        clock->due = now - clock->period;
}

/* Sets the weight of this tick: the time since the last tick of its CPU's clock, whatever ran. To read the perf event takes 0.4 us,
 * and it counts by another clock of the kernel, so that counts and times do not add up. */
static ALWAYS_INLINE void weigh(struct perf_event_context *context, struct clock *clock, const struct tick_period *set,
                                struct stack_record *record, u64 now) {
    u64 since = now - clock->last;
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
    clock->last = now;
    if (goes_on || !before)
        count_missed(clock, record, clock->period, now);
    else
        count_missed_after_change(clock, record, before, since, now);
}

/* The part of a tick's time in which the thread that it met can have run, and how many ticks came late. */
struct tick_share {
    u64 weight;
    u64 late;
};

/* The share of a tick of which no record is sent. Of those that are sent user space computes it by the same rules (`Tick::after`), and
 * adds the time for which the clock was throttled.
 *
 * Missed ticks before a punctual one did not come because the CPU was idle: that time is not the thread's. Ticks that were held
 * off come as soon as they can, between two due times: they are late, and their time counts. */
static ALWAYS_INLINE struct tick_share share_of_tick(const struct stack_record *record) {
    u64 period = record->period;
    u64 missed = record->missed;
    u64 weight = record->weight;
    u64 punctual = period / PUNCTUAL_PART < PUNCTUAL ? period / PUNCTUAL_PART : PUNCTUAL;
    if (missed && record->behind <= punctual) {
        u64 idle = missed * period;
        weight = weight > idle ? weight - idle : 0;
        missed = 0;
    } else {
        u64 most = period * MAX_TICKS_OF_A_SAMPLE;
        weight = weight < most ? weight : most;
        missed = missed < MAX_TICKS_OF_A_SAMPLE ? missed : MAX_TICKS_OF_A_SAMPLE - 1;
    }
    return (struct tick_share){.weight = weight + record->rested, .late = missed};
}

#endif
