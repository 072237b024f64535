//! The file of speedscope.app: every thread a profile of its own, its stacks in order of time.
//!
//! Valid by <https://www.speedscope.app/file-format-schema.json>, which allows properties of our own: the
//! ledger is one. Weights are seconds, as py-spy's are, or numbers of samples. Written as it goes: the
//! stacks of a minute, spelled out, are larger than the profile.

use std::collections::HashMap;
use std::io::Write;

use profiler_model::{Frame, LossReason};
use profiler_profile::{Ledger, Profile, Run, StackId, ThreadId};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::label::{frame_name, line_shown, root_labels};
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

    fn write(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError> {
        if !profile.keeps_timeline() {
            return Err(OutputError::NoTimeline);
        }
        let view = View::new(profile, options);
        let threads = profile.threads().map(|(thread, _)| thread);
        let file = File {
            schema: "https://www.speedscope.app/file-format-schema.json",
            name: format!("{} ({})", options.title, summary(profile.ledger())),
            exporter: concat!("profiler@", env!("CARGO_PKG_VERSION")),
            profiles: threads.filter_map(|thread| ThreadView::new(&view, thread)).collect(),
            shared: Shared { frames: &view.frames },
            ledger: LedgerView::new(profile.ledger()),
        };
        serde_json::to_writer(&mut *out, &file).map_err(std::io::Error::from)?;
        Ok(writeln!(out)?)
    }
}

/// The profile as the options show it.
struct View<'a> {
    profile: &'a Profile,
    options: &'a ViewOptions,
    frames: Vec<SharedFrame>,
    /// The shared frame of each frame of the profile, by index.
    shared: Vec<usize>,
    /// The shared frames that each thread's stacks stand on, by index.
    roots: Vec<Vec<usize>>,
}

impl<'a> View<'a> {
    fn new(profile: &'a Profile, options: &'a ViewOptions) -> Self {
        let mut interner = Interner::default();
        let shared =
            profile.frames().map(|(_, frame)| interner.intern(SharedFrame::new(frame, options))).collect();
        let mut root_of = |label| interner.intern(SharedFrame { name: label, file: None, line: None });
        let roots = profile
            .threads()
            .map(|(thread, _)| root_labels(profile, thread, options).into_iter().map(&mut root_of).collect())
            .collect();
        View { profile, options, frames: interner.frames, shared, roots }
    }

    /// The samples of a thread that weigh anything.
    fn runs(&self, thread: ThreadId) -> impl Iterator<Item = (Run, u64)> {
        let runs = self.profile.timeline(thread).into_iter().flatten();
        runs.map(|run| (run, self.options.weight.of(&run.weights))).filter(|(_, weight)| *weight > 0)
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

    /// The stack as shared frames, root first.
    fn frames_of(&self, thread: ThreadId, stack: Option<StackId>) -> Vec<usize> {
        let frames = self.profile.root_first(stack).into_iter().map(|frame| self.shared[frame.index()]);
        self.roots[thread.index()].iter().copied().chain(frames).collect()
    }

    fn thread_name(&self, thread: ThreadId) -> String {
        let info = self.profile.thread_of(thread);
        let name = info.name.as_deref().unwrap_or_default();
        let thread = format!("Thread {} \"{name}\"", info.key.tid);
        if self.options.processes { format!("Process {} {thread}", info.key.pid) } else { thread }
    }
}

#[derive(Default)]
struct Interner {
    frames: Vec<SharedFrame>,
    known: HashMap<SharedFrame, usize>,
}

impl Interner {
    fn intern(&mut self, frame: SharedFrame) -> usize {
        *self.known.entry(frame).or_insert_with_key(|frame| {
            self.frames.push(frame.clone());
            self.frames.len() - 1
        })
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
struct SharedFrame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

impl SharedFrame {
    /// The whole file name, as py-spy has it here: speedscope shows it only when asked. No column: it would
    /// split a line into as many boxes as it has expressions.
    fn new(frame: &Frame, options: &ViewOptions) -> Self {
        let file = [&*frame.file, frame.module.as_deref().unwrap_or_default()];
        SharedFrame {
            name: frame_name(frame),
            file: file.into_iter().find(|file| !file.is_empty()).map(str::to_owned),
            line: line_shown(frame, options.line_numbers),
        }
    }
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: String,
    exporter: &'static str,
    profiles: Vec<ThreadView<'a>>,
    shared: Shared<'a>,
    ledger: LedgerView<'a>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: &'a [SharedFrame],
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
    weights: RunWeights<'a>,
}

impl<'a> ThreadView<'a> {
    /// `None` for a thread without samples.
    fn new(view: &'a View<'a>, thread: ThreadId) -> Option<Self> {
        let end: u64 = view.runs(thread).map(|(_, weight)| weight).sum();
        (end > 0).then(|| ThreadView {
            kind: "sampled",
            name: view.thread_name(thread),
            unit: view.unit(),
            start_value: 0.0,
            end_value: view.in_unit(end),
            samples: Samples { view, thread },
            weights: RunWeights { view, thread },
        })
    }
}

struct Samples<'a> {
    view: &'a View<'a>,
    thread: ThreadId,
}

impl Serialize for Samples<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let runs = self.view.runs(self.thread);
        serializer.collect_seq(runs.map(|(run, _)| self.view.frames_of(self.thread, run.stack)))
    }
}

struct RunWeights<'a> {
    view: &'a View<'a>,
    thread: ThreadId,
}

impl Serialize for RunWeights<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let runs = self.view.runs(self.thread);
        serializer.collect_seq(runs.map(|(_, weight)| self.view.in_unit(weight)))
    }
}

/// The counts of the ledger, for scripts.
#[derive(Serialize)]
struct LedgerView<'a> {
    attempts: u64,
    shown: u64,
    not_asked_for: u64,
    lost: Losses<'a>,
}

impl<'a> LedgerView<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        LedgerView {
            attempts: ledger.attempts(),
            shown: ledger.shown(),
            not_asked_for: ledger.not_asked_for(),
            lost: Losses(ledger),
        }
    }
}

/// The losses by reason, those that occurred.
struct Losses<'a>(&'a Ledger);

impl Serialize for Losses<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let losses: Vec<(LossReason, u64)> = self.0.losses();
        let mut map = serializer.serialize_map(Some(losses.len()))?;
        for (reason, times) in losses {
            map.serialize_entry(&reason.to_string(), &times)?;
        }
        map.end()
    }
}
