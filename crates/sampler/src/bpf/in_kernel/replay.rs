//! What the in-kernel program sent of the labyrinth once, at an ordinary rate and under overload (`cargo xtask rings`), becomes
//! events again: without a kernel, and although the process is long gone.

use std::path::Path;
use std::sync::Arc;

use profiler_account::Tick;
use profiler_bpf::{KeptRecords, Record};
use profiler_memory::{ReadError, ReadMemory};
use profiler_model::{ModuleNumber, Pid, RemoteAddr, SchedStat, ThreadKey};
use profiler_profile::{Dictionary, Event, ProcessInfo, Profile, Sink, ThreadInfo};
use profiler_python::{Offsets, Version, offsets_for};
use profiler_stack::{CodeEvidence, CodeSource};
use profiler_tests::Frame;
use profiler_tests::labyrinth::{Place, judge};

use super::*;
use crate::reporter::{ProcessView, Reporter, ShortPaths};

/// The CPython that ran the labyrinth.
const VERSION: Version = Version { major: 3, minor: 12, micro: 0, release: 0xF0 };

/// A process that has ended.
struct Gone(Offsets);

impl ReadMemory for Gone {
    fn read(&self, _at: RemoteAddr, _into: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::ProcessEnded)
    }
}

impl Gone {
    fn source(&self) -> CodeSource<'_, Gone> {
        CodeSource { memory: self, offsets: &self.0 }
    }
}

impl ProcessView for Gone {
    type Memory = Gone;

    fn code(&self) -> Option<CodeSource<'_, Gone>> {
        Some(self.source())
    }

    fn module_path(&self, _: ModuleNumber) -> Arc<str> {
        unreachable!("the program captures no native part")
    }

    fn learn(&mut self, _: &CodeEvidence, _: &RawStack, _: bool) {}

    fn lives_after_loss(&mut self) -> bool {
        false
    }
}

#[derive(Debug)]
struct WholePaths;

impl ShortPaths for WholePaths {
    fn shorten(&mut self, file: &Arc<str>) -> Arc<str> {
        Arc::clone(file)
    }
}

#[derive(Default)]
struct Recording {
    profile: Profile,
    cpu: Nanos,
}

impl Sink for Recording {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        self.profile.take(dictionary, events);
        for event in events {
            self.cpu += match event {
                Event::Sample(event) => event.sample.cpu,
                Event::Loss(loss) => loss.cpu,
                Event::Skip(skip) => skip.cpu,
                _ => Nanos::ZERO,
            };
        }
    }
}

/// What was replayed of a ring.
struct Replayed {
    recording: Recording,
    stacks: u64,
    /// The CPU time that these stand for.
    cpu: Nanos,
}

fn replay(name: &str) -> Replayed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rings").join(name);
    let records = KeptRecords::from_bytes(std::fs::read(path).expect("the stored ring"));
    let mut dictionary = Dictionary::default();
    let process = dictionary.process(ProcessInfo::default());
    let mut reporter = Reporter::new(process, Box::new(WholePaths), 1_000.0);
    let mut gone = Gone(offsets_for(VERSION).expect("it is in a table"));
    let mut recording = Recording::default();
    let mut events = EventWriter::new(&mut dictionary, &mut recording);
    let (mut evidence, mut stacks, mut cpu) = (HashedEvidence::default(), 0, Nanos::ZERO);
    for record in records.iter() {
        match record {
            Record::Names(names) => {
                let sent = sent_names(&gone.0, &names).expect("names with their hash");
                reporter.resolver.keep_names(&gone.0, sent);
            }
            Record::Stack(stack) => {
                if let Some(proof) = stack.proof() {
                    reporter.resolver.note_proof(proof, sent_hashes(&stack));
                }
                read_evidence(&stack, &mut evidence);
                let slot = ThreadSlot(stack.thread().as_u32());
                reporter.meet(slot, (stack.time(), SchedStat::default()), |process| ThreadInfo {
                    key: ThreadKey { pid: Pid::new(1), tid: stack.thread() },
                    process,
                    pthread_id: None,
                    name: None,
                    is_main: true,
                });
                let tick = Tick::after(stack.weight(), stack.missed(), stack.behind(), stack.period());
                let capture = capture_of(&stack, slot, tick.weight, raw_stack(&stack, gone.source()));
                (stacks, cpu) = (stacks + 1, cpu + tick.weight);
                reporter.take(Observation::Program(capture, &evidence), &mut gone, &mut events);
            }
            _ => {}
        }
    }
    events.flush();
    Replayed { recording, stacks, cpu }
}

/// Judges each stack; returns how many samples were in the maze.
fn in_maze(profile: &Profile) -> u64 {
    let mut samples = 0;
    for tally in profile.tallies() {
        let frames = profile.root_first(tally.stack).into_iter().map(|id| {
            let frame = profile.frame_of(id);
            Frame {
                function: frame.function.to_string(),
                file: Some(frame.file.to_string()),
                line: frame.position.line,
            }
        });
        let place = judge(&frames.collect::<Vec<_>>()).expect("a stack that can exist");
        samples += if matches!(place, Place::Maze { .. }) { tally.weights.samples } else { 0 };
    }
    samples
}

#[test]
fn stored_labyrinth_is_whole_and_not_torn() {
    let Replayed { recording, stacks, cpu } = replay("labyrinth");
    let ledger = recording.profile.ledger();
    assert_eq!(ledger.attempts(), stacks);
    // Names that are too long for a record are read from the process, which is gone.
    assert!(ledger.lost() <= 2 && ledger.lost() == ledger.lost_for(LossReason::NamesMissing));
    let maze = in_maze(&recording.profile);
    assert!(stacks >= 50 && maze > stacks / 2, "{maze} of {stacks}: {:?}", ledger.losses());
    assert_eq!(recording.cpu, cpu, "each nanosecond is in one event");
}

#[test]
fn stored_overload_is_not_torn_and_counts_what_it_lacks() {
    let Replayed { recording, stacks, cpu } = replay("overload");
    let ledger = recording.profile.ledger();
    assert_eq!(ledger.attempts(), stacks);
    let maze = in_maze(&recording.profile);
    assert!(stacks >= 50 && maze > stacks / 2, "{maze} of {stacks}: {:?}", ledger.losses());
    assert_eq!(recording.cpu, cpu, "each nanosecond is in one event");
}

/// Records whose code objects have no names are lost for that reason, and ask for them.
#[test]
fn stacks_without_names_are_lost() {
    let mut gone = Gone(offsets_for(VERSION).expect("it is in a table"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rings/labyrinth");
    let records = KeptRecords::from_bytes(std::fs::read(path).expect("the stored ring"));
    let stack = records.iter().find_map(|record| match record {
        Record::Stack(stack) => Some(stack),
        _ => None,
    });
    let stack = stack.expect("a stack");
    let mut dictionary = Dictionary::default();
    let process = dictionary.process(ProcessInfo::default());
    let mut reporter = Reporter::new(process, Box::new(WholePaths), 1_000.0);
    let mut recording = Recording::default();
    let mut events = EventWriter::new(&mut dictionary, &mut recording);
    let mut evidence = HashedEvidence::default();
    read_evidence(&stack, &mut evidence);
    let time = Nanos::from_nanos(1_000);
    let capture = capture_of(&stack, ThreadSlot(1), time, raw_stack(&stack, gone.source()));
    reporter.take(Observation::Program(capture, &evidence), &mut gone, &mut events);
    events.flush();
    assert_eq!(recording.profile.ledger().lost_for(LossReason::NamesMissing), 1);
    assert!(!reporter.resolver.take_missing().is_empty());
}
