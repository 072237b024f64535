//! The file of speedscope.app: every thread a profile of its own, its stacks in order of time.
//!
//! Valid by <https://www.speedscope.app/file-format-schema.json>, which allows properties of our own: the
//! ledger is one. Weights are seconds, as py-spy's are, or numbers of samples. Seconds lie where they were: all
//! threads begin with the recording, and time of which nothing is shown is a sample without frames. Written as
//! it goes: the stacks of a minute, spelled out, are larger than the profile.

use std::io::Write;

use profiler_model::{Nanos, Timestamp};
use profiler_profile::{Profile, StackId, ThreadId};
use serde::{Serialize, Serializer};

use crate::escape::SafeStrings;
use crate::ledger_json::LedgerView;
use crate::shared_frames::{SharedFrame, SharedFrames};
use crate::stretches::{Stretch, beginning, duration, stretches};
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
        let threads = profile.threads().map(|(thread, _)| thread);
        let profiles: Vec<_> = threads.filter_map(|thread| ThreadView::new(&view, thread)).collect();
        let file = File {
            schema: "https://www.speedscope.app/file-format-schema.json",
            name: format!("{} ({})", options.title, summary(profile.ledger())),
            exporter: concat!("profiler@", env!("CARGO_PKG_VERSION")),
            active_profile_index: heaviest(&profiles),
            profiles,
            shared: Shared { frames: view.frames.all.iter().map(ListedFrame::new).collect() },
            equal_neighbours_merged: !view.is_one_entry_per_sample,
            ledger: LedgerView::new(profile.ledger()),
        };
        let mut writer = serde_json::Serializer::with_formatter(&mut *out, SafeStrings);
        file.serialize(&mut writer).map_err(std::io::Error::from)?;
        Ok(writeln!(out)?)
    }
}

/// The first of the threads that used most CPU time: where the user wants to look first, and most often its main
/// thread.
fn heaviest(profiles: &[ThreadView<'_>]) -> usize {
    let used = profiles.iter().map(|profile| {
        let of_thread = profile.samples.view.profile.timeline(profile.samples.thread);
        of_thread.into_iter().flatten().map(|run| run.weights.cpu.as_nanos()).sum::<u64>()
    });
    let most = used.enumerate().max_by_key(|(index, cpu)| (*cpu, std::cmp::Reverse(*index)));
    most.map_or(0, |(index, _)| index)
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
        let stretches = stretches(self.profile, thread, self.beginning);
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
        let thread = format!("Thread {} \"{name}\"", info.key.tid);
        if self.options.processes { format!("Process {} {thread}", info.key.pid) } else { thread }
    }
}

/// A sample of the file.
#[derive(Clone, Copy)]
struct Piece {
    /// The stack, which may have no frame; `None` where nothing was shown.
    stack: Option<Option<StackId>>,
    weight: u64,
}

/// A part of a stretch.
struct Part {
    stack: Option<StackId>,
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
        stack: stretch.run.stack,
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

/// One thread's profile.
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
}

impl<'a> ThreadView<'a> {
    /// `None` for a thread without samples.
    fn new(view: &'a View<'a>, thread: ThreadId) -> Option<Self> {
        let has_samples = view.pieces(thread).any(|piece| piece.stack.is_some());
        let end: u64 = view.pieces(thread).map(|piece| piece.weight).sum();
        has_samples.then(|| ThreadView {
            kind: "sampled",
            name: view.thread_name(thread),
            unit: view.unit(),
            start_value: 0.0,
            end_value: view.in_unit(end),
            samples: Samples { view, thread },
            weights: PieceWeights { view, thread },
        })
    }
}

struct Samples<'a> {
    view: &'a View<'a>,
    thread: ThreadId,
}

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pieces = self.view.pieces(self.thread);
        serializer.collect_seq(pieces.map(|piece| self.view.frames_of(self.thread, piece)))
    }
}

struct PieceWeights<'a> {
    view: &'a View<'a>,
    thread: ThreadId,
}

impl Serialize for PieceWeights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pieces = self.view.pieces(self.thread);
        serializer.collect_seq(pieces.map(|piece| self.view.in_unit(piece.weight)))
    }
}
