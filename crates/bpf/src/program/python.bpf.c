/* Takes the Python stack of the thread that runs on this CPU, at each tick of the CPU's clock (a perf event).
 *
 * The thread is interrupted and cannot go on meanwhile, and only a thread itself changes its frames, so no stack that is read
 * here can be torn. Memory that is not there (a page that was never touched or was swapped out) cannot be waited for; such a
 * stack is lost, and its record says why.
 *
 * Of each frame the record has the fields from which user space computes its place in the code, as it does for frames from any
 * other source. Of each code object it has a hash of the bytes that identify it; the names are sent the first time.
 *
 * Ticks of threads without Python are only counted. */
#include "native.h"
#include "off_cpu.h"
#include "stack.h"
#include "ticks.h"

/* Set when the program is loaded. The verifier leaves out what is not asked for. */
const volatile u32 watches_threads = 0;

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
    if (!recognise(workspace, ids))
        return 0;
    clock->events += 1;
    if (is_native(&workspace->cache)) {
        count_native(ids, record, start);
        return 0;
    }
    take_stack(context, workspace, RECORD_STACK, start, way);
    if (way == BY_HELPER && watches_threads)
        record->ran = time_on_cpu(record->thread, start);
    if (bpf_ringbuf_output(&ring, record, record_size(record), wakeup(record->outcome)) != 0) {
        count_loss(record->process, record->thread, record->weight + record->rested);
        /* Begins a new epoch, so that the hashes of this record are sent again. */
        struct code_epoch *epoch = epoch_of_record(workspace);
        if (epoch)
            epoch->checked = 0;
    }
    return 0;
}

SECTION("perf_event")
int sample(struct perf_event_context *context) { return tick(context, BY_HELPER); }

SECTION("perf_event")
int sample_by_calls(struct perf_event_context *context) { return tick(context, BY_CALLS); }

char program_license[] SECTION("license") = "Dual MIT/GPL";

/* Types that user space compares with its own (`wire.rs`) and that nothing else has the compiler describe. */
const volatile struct {
    enum record_kind record_kind;
    enum off_cpu_kind off_cpu_kind;
    enum outcome outcome;
    enum interval_flags interval_flags;
    enum counter counter;
    enum id_source id_source;
    struct unregistered unregistered;
} described = {};
