//! The file of speedscope.app: every thread a profile of its own, its stacks in order of time. Where processes are merged,
//! every group of equal threads is one, and its stacks are sums, each once.
//!
//! Valid by <https://www.speedscope.app/file-format-schema.json>, which allows properties of our own: the
//! ledger is one. Weights are seconds, as py-spy's are, or numbers of samples. Seconds lie where they were: all
//! threads begin with the recording, and time of which nothing is shown is a sample without frames. Written as
//! it goes: the stacks of a minute, spelled out, are larger than the profile.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::rc::Rc;

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Profile, ThreadId};
use serde::{Serialize, Serializer};

use crate::drawn_stack::DrawnStack;
use crate::escape::SafeStrings;
use crate::label::root_labels;
use crate::ledger_json::LedgerView;
use crate::shared_frames::{SharedFrame, SharedFrames};
use crate::stretches::{Overlaps, Stretch, beginning, duration, stretches};
use crate::{Format, OutputError, ViewOptions, Weight, summary};

/// The file of speedscope.app.
#[derive(Clone, Copy, Debug)]
pub struct Speedscope;

impl Format for Speedscope {
    fn name(&self) -> &'static str {
        "speedscope"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["json", "speedscope"]
    }

    fn needs_timeline(&self) -> bool {
        true
    }

    fn write_view(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError> {
        let view = View::new(profile, options);
        let profiles = match options.merge_processes {
            true => merged_threads(&view),
            false => {
                let threads = profile.threads().map(|(thread, _)| thread);
                threads.filter_map(|thread| ThreadView::new(&view, thread)).collect()
            }
        };
        let file = File {
            schema: "https://www.speedscope.app/file-format-schema.json",
            name: format!("{} ({})", options.title, summary(profile.ledger())),
            exporter: concat!("profiler@", env!("CARGO_PKG_VERSION")),
            active_profile_index: heaviest(&profiles),
            profiles,
            shared: Shared { frames: view.frames.all.iter().map(ListedFrame::new).collect() },
            equal_neighbours_merged: !view.is_one_entry_per_sample && !options.merge_processes,
            processes_merged: options.merge_processes,
            ledger: LedgerView::new(profile.ledger()),
        };
        let mut writer = serde_json::Serializer::with_formatter(&mut *out, SafeStrings);
        file.serialize(&mut writer).map_err(std::io::Error::from)?;
        Ok(writeln!(out)?)
    }
}

/// The first of the profiles that used most CPU time: where the user wants to look first, and most often a main thread.
fn heaviest(profiles: &[ThreadView<'_>]) -> usize {
    let used = profiles.iter().map(|profile| profile.cpu).enumerate();
    used.max_by_key(|(index, cpu)| (*cpu, std::cmp::Reverse(*index))).map_or(0, |(index, _)| index)
}

/// The CPU time of a thread.
fn cpu_of(profile: &Profile, thread: ThreadId) -> Nanos {
    profile.timeline(thread).into_iter().flatten().fold(Nanos::ZERO, |sum, run| sum + run.weights.cpu)
}

/// The threads of merged processes: those of one name, in processes of one command line and ancestry, are one profile.
fn merged_threads<'a>(view: &'a View<'a>) -> Vec<ThreadView<'a>> {
    let profile = view.profile;
    let by_name = ViewOptions { threads: true, ..view.options.clone() };
    let mut groups: Vec<ThreadView<'a>> = Vec::new();
    let mut index_of: HashMap<Vec<String>, usize> = HashMap::new();
    let mut group_of: Vec<usize> = Vec::new();
    for (thread, _) in profile.threads() {
        let index = *index_of.entry(root_labels(profile, thread, &by_name)).or_insert_with(|| {
            groups.push(ThreadView::merged(view, thread));
            groups.len() - 1
        });
        groups[index].cpu += cpu_of(profile, thread);
        group_of.push(index);
    }
    let mut sums = vec![BTreeMap::new(); groups.len()];
    for tally in profile.tallies() {
        let sum: &mut u64 =
            sums[group_of[tally.thread.index()]].entry(DrawnStack::of_tally(tally)).or_default();
        *sum += view.options.weight.of(&tally.weights);
    }
    for (group, sums) in groups.iter_mut().zip(sums) {
        let pieces = sums.into_iter().filter(|(_, weight)| *weight > 0);
        group.set_pieces(pieces.map(|(stack, weight)| Piece { stack: Some(stack), weight }).collect());
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// The profile as the options show it.
struct View<'a> {
    profile: &'a Profile,
    options: &'a ViewOptions,
    frames: SharedFrames,
    beginning: Timestamp,
    duration: Nanos,
    /// Otherwise equal neighbours are one entry.
    is_one_entry_per_sample: bool,
}

/// A file of more samples than this has equal neighbours in one entry: its viewer would not open it otherwise.
const MOST_ENTRIES: u64 = 1_000_000;

impl<'a> View<'a> {
    fn new(profile: &'a Profile, options: &'a ViewOptions) -> Self {
        let frames = SharedFrames::new(profile, options);
        let (beginning, duration) = (beginning(profile), duration(profile));
        let is_one_entry_per_sample = profile.ledger().shown() <= MOST_ENTRIES;
        View { profile, options, frames, beginning, duration, is_one_entry_per_sample }
    }

    /// What the file says of a thread, in order.
    fn pieces(&self, thread: ThreadId) -> impl Iterator<Item = Piece> {
        let least_gap = match self.options.weight {
            // Numbers of samples have no place in time.
            Weight::Samples => u64::MAX,
            Weight::Wall => 0,
            Weight::Cpu => self.profile.ledger().interval.unwrap_or_default().as_nanos(),
        };
        let overlaps = match self.options.weight {
            Weight::Wall => Overlaps::Move,
            Weight::Cpu | Weight::Samples => Overlaps::Cut,
        };
        let stretches = stretches(self.profile, thread, self.beginning, overlaps);
        let parts = stretches.flat_map(move |stretch| {
            let weight = self.options.weight.of(&stretch.run.weights);
            parts(stretch, weight, least_gap, self.is_one_entry_per_sample)
        });
        Pieces { parts, next: None, position: 0, least_gap, end: self.duration.as_nanos() }
    }

    /// A weight in the unit of the file.
    fn in_unit(&self, weight: u64) -> f64 {
        match self.options.weight {
            Weight::Samples => weight as f64,
            Weight::Cpu | Weight::Wall => weight as f64 / 1e9,
        }
    }

    fn unit(&self) -> &'static str {
        match self.options.weight {
            Weight::Samples => "none",
            Weight::Cpu | Weight::Wall => "seconds",
        }
    }

    /// The stack as shared frames, root first; none in a gap.
    fn frames_of(&self, thread: ThreadId, piece: Piece) -> Vec<usize> {
        match piece.stack {
            Some(stack) => self.frames.root_first(self.profile, thread, stack),
            None => Vec::new(),
        }
    }

    fn thread_name(&self, thread: ThreadId) -> String {
        let info = self.profile.thread_of(thread);
        let name = info.name.as_deref().unwrap_or_default();
        if self.options.merge_processes {
            let process = self.profile.process_of(info.process);
            return format!("Process \"{}\" Thread \"{name}\"", process.command_line);
        }
        let thread = format!("Thread {} \"{name}\"", info.key.tid);
        if self.options.processes { format!("Process {} {thread}", info.key.pid) } else { thread }
    }
}

/// A sample of the file.
#[derive(Clone, Copy)]
struct Piece {
    /// The stack, which may have no frame; `None` where nothing was shown.
    stack: Option<DrawnStack>,
    weight: u64,
}

/// A part of a stretch.
struct Part {
    stack: DrawnStack,
    /// When it ends.
    end: u64,
    weight: u64,
}

/// A stretch in equal parts, one per sample, or as many as it has gaps of that length in it: nothing is known of when in
/// between a thread had no CPU.
fn parts(
    stretch: Stretch,
    weight: u64,
    least_gap: u64,
    is_one_per_sample: bool,
) -> impl Iterator<Item = Part> {
    let length = stretch.end.saturating_sub(stretch.start).as_nanos();
    let (gaps, samples) =
        (length.saturating_sub(weight) / least_gap.max(1), stretch.run.weights.samples.max(1));
    let count = match (weight, is_one_per_sample) {
        (0, _) => 0,
        (_, true) => samples,
        (_, false) => gaps.clamp(1, samples),
    };
    let share = move |of: u64, parts: u64| (u128::from(of) * u128::from(parts) / u128::from(count)) as u64;
    (0..count).map(move |before| Part {
        stack: DrawnStack::of_run(&stretch.run),
        end: stretch.start.as_nanos() + share(length, before + 1),
        weight: share(weight, before + 1) - share(weight, before),
    })
}

/// A thread's samples, with samples of no frame where nothing was shown, so that every sample lies where it
/// was taken: speedscope puts them one behind the other.
///
/// CPU time is less than the time that passed. What is missing becomes a gap as well, as soon as it is more
/// than the mean time between two samples; a smaller one would be invention.
struct Pieces<I> {
    parts: I,
    /// What comes after a gap.
    next: Option<Piece>,
    /// The sum of the weights so far.
    position: u64,
    /// Shorter gaps wait until they have grown.
    least_gap: u64,
    end: u64,
}

impl<I> Pieces<I> {
    /// The gap from the position to `until`, if it is one.
    fn gap(&mut self, until: u64) -> Option<Piece> {
        let weight = until.saturating_sub(self.position);
        (weight > self.least_gap).then(|| {
            self.position += weight;
            Piece { stack: None, weight }
        })
    }
}

impl<I: Iterator<Item = Part>> Iterator for Pieces<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some(piece) = self.next.take() {
            return Some(piece);
        }
        let Some(part) = self.parts.next() else { return self.gap(self.end) };
        let piece = Piece { stack: Some(part.stack), weight: part.weight };
        let gap = self.gap(part.end.saturating_sub(part.weight));
        self.position += part.weight;
        match gap {
            Some(gap) => {
                self.next = Some(piece);
                Some(gap)
            }
            None => Some(piece),
        }
    }
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: String,
    exporter: &'static str,
    /// The profile that the viewer opens first.
    #[serde(rename = "activeProfileIndex")]
    active_profile_index: usize,
    profiles: Vec<ThreadView<'a>>,
    shared: Shared<'a>,
    ledger: LedgerView<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    equal_neighbours_merged: bool,
    /// Whether each profile is the sum of a thread in all processes of a command line, in no order of time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    processes_merged: bool,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<ListedFrame<'a>>,
}

/// A frame of the file: py-spy's users read all four properties of each. What is not known is empty or 0.
#[derive(Serialize)]
struct ListedFrame<'a> {
    name: &'a str,
    file: &'a str,
    line: u32,
    /// Always 0: columns would split a line into as many boxes as it has expressions.
    col: u32,
}

impl<'a> ListedFrame<'a> {
    fn new(frame: &'a SharedFrame) -> Self {
        let file = frame.file.as_deref().unwrap_or_default();
        ListedFrame { name: &frame.name, file, line: frame.line.unwrap_or(0), col: 0 }
    }
}

/// One thread's profile, or that of several as one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ThreadView<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    unit: &'static str,
    start_value: f64,
    end_value: f64,
    samples: Samples<'a>,
    weights: PieceWeights<'a>,
    /// The CPU time of all its samples.
    #[serde(skip)]
    cpu: Nanos,
}

impl<'a> ThreadView<'a> {
    /// `None` for a thread without samples.
    fn new(view: &'a View<'a>, thread: ThreadId) -> Option<Self> {
        let entries = Entries { view, thread, sums: None };
        let has_samples = entries.pieces().any(|piece| piece.stack.is_some());
        has_samples.then(|| ThreadView::of(entries, cpu_of(view.profile, thread)))
    }

    /// A profile that gets its entries later and is called after `thread`, the first of those that it sums up.
    fn merged(view: &'a View<'a>, thread: ThreadId) -> Self {
        ThreadView::of(Entries { view, thread, sums: Some(Rc::default()) }, Nanos::ZERO)
    }

    fn of(entries: Entries<'a>, cpu: Nanos) -> Self {
        let view = entries.view;
        ThreadView {
            kind: "sampled",
            name: view.thread_name(entries.thread),
            unit: view.unit(),
            start_value: 0.0,
            end_value: view.in_unit(entries.pieces().map(|piece| piece.weight).sum()),
            samples: Samples(entries.clone()),
            weights: PieceWeights(entries),
            cpu,
        }
    }

    fn set_pieces(&mut self, pieces: Rc<[Piece]>) {
        let Entries { view, thread, .. } = self.samples.0;
        *self = ThreadView::of(Entries { view, thread, sums: Some(pieces) }, self.cpu);
    }

    fn is_empty(&self) -> bool {
        self.samples.0.pieces().next().is_none()
    }
}

/// The entries of a profile.
#[derive(Clone)]
struct Entries<'a> {
    view: &'a View<'a>,
    /// The thread, or the first of those that are summed up.
    thread: ThreadId,
    /// The stacks of merged threads, on the roots of that thread.
    sums: Option<Rc<[Piece]>>,
}

impl Entries<'_> {
    fn pieces(&self) -> Box<dyn Iterator<Item = Piece> + '_> {
        match &self.sums {
            Some(sums) => Box::new(sums.iter().copied()),
            None => Box::new(self.view.pieces(self.thread)),
        }
    }
}

struct Samples<'a>(Entries<'a>);

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Entries { view, thread, .. } = self.0;
        serializer.collect_seq(self.0.pieces().map(|piece| view.frames_of(thread, piece)))
    }
}

struct PieceWeights<'a>(Entries<'a>);

impl Serialize for PieceWeights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.pieces().map(|piece| self.0.view.in_unit(piece.weight)))
    }
}
