//! What threads do in the kernel: from the program counters that the in-kernel program sends to frames with names. Only
//! where that was asked for (`--kernel`). What they are called is for `kernel_names` to say.

use profiler_model::{Frame, FrameKind, KernelFunction, Timestamp};
use profiler_stack::truncation_mark;
use rustc_hash::FxHashMap;

use crate::kernel_names::{KernelNames, Named};

/// How many places are remembered with their frames. Code of a kernel that is used has some thousand.
const MAX_KNOWN: usize = 65_536;

/// What stands for functions whose names are not known.
const UNNAMED: &str = "[kernel]";

/// By what a thread leaves its CPU, whatever it waits for.
const SCHEDULER: [&str; 8] = [
    "__schedule",
    "__schedule_loop",
    "schedule",
    "preempt_schedule",
    "preempt_schedule_common",
    "preempt_schedule_notrace",
    "preempt_schedule_irq",
    "schedule_preempt_disabled",
];

/// The frames of the kernel that were met in one process.
#[derive(Debug)]
pub struct KernelFrames<Id> {
    names: Option<KernelNames>,
    /// Of the kernel's own code, which never changes.
    lasting: FxHashMap<u64, Id>,
    scheduler: FxHashMap<u64, bool>,
}

impl<Id> Default for KernelFrames<Id> {
    fn default() -> Self {
        KernelFrames { names: None, lasting: FxHashMap::default(), scheduler: FxHashMap::default() }
    }
}

impl<Id> KernelFrames<Id> {
    /// With these names.
    pub fn new(names: KernelNames) -> Self {
        KernelFrames { names: Some(names), ..KernelFrames::default() }
    }

    /// Whether somebody asked for them.
    pub fn are_wanted(&self) -> bool {
        self.names.is_some()
    }

    /// The ids of the frames of a thread that sleeps, root first, by what the kernel writes of it (leaf first), if it does.
    pub fn of_sleeper(functions: Option<&[KernelFunction]>, intern: &mut dyn FnMut(&Frame) -> Id) -> Vec<Id> {
        let functions = functions.filter(|functions| !functions.is_empty());
        // Who sleeps does so in the kernel.
        let Some(functions) = functions else { return vec![intern(&frame(UNNAMED))] };
        let frames = functions.iter().rev().map(|KernelFunction { name, module }| {
            intern(&Frame { module: module.as_deref().map(Into::into), ..frame(name) })
        });
        frames.collect()
    }
}

impl<Id: Copy> KernelFrames<Id> {
    /// Forgets the ids of all frames, and keeps what names them.
    pub fn forget_ids(&mut self) {
        self.lasting.clear();
    }

    /// The ids of the frames of the kernel, root first, from the program `counters` of a thread at the instant `at`, leaf
    /// first. There are none if the thread was not in the kernel, or nobody asked for them. `is_leaving`: the thread was
    /// leaving its CPU. Frames that may lack their root begin with [`truncation_mark`].
    pub fn root_first(
        &mut self,
        counters: impl ExactSizeIterator<Item = u64>,
        at: Timestamp,
        is_leaving: bool,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Vec<Id> {
        let Some(names) = self.names.clone() else { return Vec::new() };
        // A thread that leaves its CPU is in the kernel, even if the kernel does not say where.
        if counters.len() == 0 && !is_leaving {
            return Vec::new();
        }
        let places = (0..).zip(counters).map(|(index, counter)| {
            // Behind a call; that may be the end of the function.
            counter.saturating_sub(u64::from(index > 0))
        });
        let places: Vec<u64> = places.collect();
        let waits = match is_leaving {
            true => without_scheduler(&places, &mut |place| self.is_scheduler(&names, place)),
            false => Some(places.as_slice()),
        };
        let Some(waits) = waits.filter(|_| names.are_shown()) else { return vec![intern(&frame(UNNAMED))] };
        let mark = (places.len() >= names.most()).then(|| intern(&truncation_mark()));
        let frames = waits.iter().rev().map(|place| self.frame(&names, *place, at, intern));
        mark.into_iter().chain(frames).collect()
    }

    /// The frame of what had code at `place` at the instant `at`.
    fn frame(
        &mut self,
        names: &KernelNames,
        place: u64,
        at: Timestamp,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Id {
        if let Some(id) = self.lasting.get(&place) {
            return *id;
        }
        let Named { function, is_lasting } = names.find(place, at);
        let Some((name, module)) = function else { return intern(&frame(UNNAMED)) };
        let id = intern(&Frame { module, ..frame(&name) });
        if is_lasting {
            make_room(&mut self.lasting);
            self.lasting.insert(place, id);
        }
        id
    }

    /// Whether the kernel's scheduler has its code at `place`.
    fn is_scheduler(&mut self, names: &KernelNames, place: u64) -> bool {
        make_room(&mut self.scheduler);
        let is_scheduler = || names.own_function(place).is_some_and(|name| is_scheduler(&name));
        *self.scheduler.entry(place).or_insert_with(is_scheduler)
    }
}

/// Forgets what is known of places, where that is too much.
fn make_room<T>(known: &mut FxHashMap<u64, T>) {
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
}

/// Of places, leaf first, those that say what the thread did. Of a thread that left its CPU the scheduler stands on top of
/// them, and on top of that what was called to take the stack; `None` where the scheduler is not to be found.
fn without_scheduler<'a>(places: &'a [u64], is_scheduler: &mut dyn FnMut(u64) -> bool) -> Option<&'a [u64]> {
    let start = places.iter().position(|place| is_scheduler(*place))?;
    let length = places[start..].iter().take_while(|place| is_scheduler(**place)).count();
    Some(&places[start + length..])
}

/// Whether a function, or a part that the compiler made of it (`__schedule.isra.0`), is one of the scheduler's.
fn is_scheduler(name: &str) -> bool {
    SCHEDULER.contains(&name.split_once('.').map_or(name, |(name, _)| name))
}

fn frame(function: &str) -> Frame {
    Frame { kind: FrameKind::Kernel, function: function.into(), ..Frame::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "\
ffffffff81000000 T entry_SYSCALL_64
ffffffff81000100 T do_nanosleep
ffffffff81000200 T vfs_read
ffffffff81000300 T do_exit
ffffffff81000400 t __schedule.isra.0
ffffffff81000500 T schedule
ffffffff81000600 T __traceiter_sched_switch
ffffffff81000700 T _etext
ffffffffc0100000 t nft_do_chain\t[nf_tables]
ffffffffc0200000 t bpf_prog_1234_off_cpu_switch\t[bpf]
";

    /// When nothing had come or gone in the recorded kernel.
    const AT: Timestamp = Timestamp::from_nanos(1_000_000_000);
    const ENTRY: u64 = 0xffff_ffff_8100_0000;
    const NANOSLEEP: u64 = ENTRY + 0x100;
    const READ: u64 = ENTRY + 0x200;
    const EXIT: u64 = ENTRY + 0x300;
    const INNER_SCHEDULE: u64 = ENTRY + 0x400;
    const SCHEDULE: u64 = ENTRY + 0x500;
    const TRACE: u64 = ENTRY + 0x600;
    const END: u64 = ENTRY + 0x700;
    const CHAIN: u64 = 0xffff_ffff_c010_0000;
    const PROGRAM: u64 = 0xffff_ffff_c020_0000;

    fn names(is_shown: bool, most: usize) -> KernelNames {
        KernelNames::of_list(is_shown.then_some(SYMBOLS), most)
    }

    /// What is made of program counters, leaf first: the functions, root first.
    fn functions(names: KernelNames, counters: &[u64], is_leaving: bool) -> Vec<String> {
        let mut frames = Vec::new();
        let mut intern = |frame: &Frame| {
            frames.push(frame.clone());
            frames.len() - 1
        };
        let counters = counters.iter().copied();
        let ids = KernelFrames::new(names).root_first(counters, AT, is_leaving, &mut intern);
        let named = ids.into_iter().map(|id| {
            let Frame { kind, function, module, .. } = &frames[id];
            assert_eq!(*kind == FrameKind::Marker, &**function == "<truncated>");
            module.as_ref().map_or_else(|| function.to_string(), |module| format!("{function} of {module}"))
        });
        named.collect()
    }

    #[test]
    fn what_runs_is_named_from_the_root() {
        let found = functions(names(true, 9), &[READ, CHAIN + 8, ENTRY + 8], false);
        assert_eq!(found, ["entry_SYSCALL_64", "nft_do_chain of nf_tables", "vfs_read"]);
        assert!(functions(names(true, 9), &[], false).is_empty());
    }

    #[test]
    fn who_called_something_that_never_returns_is_not_who_stands_behind() {
        // The call is the last instruction of `vfs_read`: it would return to where `do_exit` begins.
        assert_eq!(
            functions(names(true, 9), &[END - 1, EXIT], false),
            ["vfs_read", "__traceiter_sched_switch"]
        );
        assert_eq!(functions(names(true, 9), &[EXIT], false), ["do_exit"]);
    }

    #[test]
    fn what_leaves_its_cpu_is_shown_without_the_scheduler() {
        let counters = [PROGRAM + 8, TRACE + 8, INNER_SCHEDULE + 8, SCHEDULE + 8, NANOSLEEP + 8, ENTRY + 8];
        assert_eq!(functions(names(true, 9), &counters, true), ["entry_SYSCALL_64", "do_nanosleep"]);
        // It was not found: nothing of this is known to be what the thread did.
        assert_eq!(functions(names(true, 9), &[PROGRAM + 8, TRACE + 8, ENTRY + 8], true), [UNNAMED]);
        // Not told at all.
        assert_eq!(functions(names(true, 9), &[], true), [UNNAMED]);
        // Somebody else's.
        assert_eq!(
            functions(names(true, 9), &[SCHEDULE + 8, ENTRY + 8], false),
            ["entry_SYSCALL_64", "schedule"]
        );
    }

    #[test]
    fn where_names_are_hidden_no_name_is_made_up() {
        for is_leaving in [false, true] {
            assert_eq!(functions(names(false, 9), &[READ, ENTRY + 8], is_leaving), [UNNAMED]);
        }
        assert!(functions(names(false, 9), &[], false).is_empty());
        assert_eq!(functions(names(true, 9), &[END, ENTRY + 8], false), ["entry_SYSCALL_64", UNNAMED]);
    }

    #[test]
    fn a_part_that_may_go_on_says_so_at_its_root() {
        let counters = [READ, READ + 8, READ + 8];
        assert_eq!(functions(names(true, 4), &counters, false), ["vfs_read"; 3]);
        assert_eq!(
            functions(names(true, 3), &counters, false),
            ["<truncated>", "vfs_read", "vfs_read", "vfs_read"]
        );
    }

    #[test]
    fn sleeping_thread_is_always_shown_in_the_kernel() {
        let of = |functions: Option<&[&str]>| {
            let named = |name: &&str| KernelFunction { name: (*name).to_owned(), module: None };
            let functions = functions.map(|names| names.iter().map(named).collect::<Vec<_>>());
            KernelFrames::<String>::of_sleeper(functions.as_deref(), &mut |frame| frame.function.to_string())
        };
        assert_eq!(of(Some(&["do_nanosleep", "entry_SYSCALL_64"])), ["entry_SYSCALL_64", "do_nanosleep"]);
        assert_eq!(of(None), [UNNAMED]);
        assert_eq!(of(Some(&[])), [UNNAMED]);
    }

    #[test]
    fn nothing_is_shown_that_nobody_asked_for() {
        let mut intern = |_: &Frame| 0usize;
        let found = KernelFrames::default().root_first([READ].into_iter(), AT, true, &mut intern);
        assert!(found.is_empty());
    }
}
