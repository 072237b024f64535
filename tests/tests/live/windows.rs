//! Windows of one recording: the engine hands its events to another profile every tenth of a second, and begins another
//! dictionary every third time. Nothing may be lost or counted twice by that. The engine is asked directly, as the binary
//! has no windows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use profiler_model::{LossReason, Nanos, Pid, Tid, Timestamp};
use profiler_os::Process;
use profiler_profile::{CapturePolicy, Dictionary, Epoch, Event, Loss, Profile, Scope, Sink};
use profiler_sampler::{BpfProgram, Directive, Observer, SamplerKind, SamplerOptions, Session};
use profiler_target::Target;
use profiler_tests::suite::{Case, On, PAUSE_AND_BPF, Sampler, Test};
use profiler_tests::{Fixture, test};

const RATE_HZ: f64 = 500.0;
const DURATION: Nanos = Nanos::from_nanos(1_500_000_000);
const WINDOW: Nanos = Nanos::from_nanos(100_000_000);
/// The number of windows after which another dictionary begins.
const WINDOWS_OF_EPOCH: usize = 3;

/// A thread that works between naps, in two functions one after the other; one that waits all the time, far below.
const PROGRAM: &str = "\
import os, threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
def first():
    burn(0.004)
def second():
    burn(0.004)
def nap():
    time.sleep(0.006)
def work():
    while True:
        first()
        nap()
        second()
lock = threading.Lock()
lock.acquire()
def deep(depth):
    if depth: deep(depth - 1)
    else: lock.acquire()
threading.Thread(target=deep, args=(200,), daemon=True).start()
threading.Thread(target=work, daemon=True).start()
print('ready', os.getpid(), flush=True)
import sys
sys.stdin.read()
";

/// Keeps the profile of each window, and one of everything.
#[derive(Default)]
struct Windows {
    whole: Profile,
    windows: Vec<Profile>,
    cuts: Vec<Timestamp>,
    epochs: Vec<Epoch>,
    next: Nanos,
}

impl Windows {
    fn new() -> Self {
        Windows { windows: vec![Profile::new()], next: WINDOW, ..Windows::default() }
    }
}

impl Sink for Windows {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        if self.epochs.last() != Some(&dictionary.epoch()) {
            self.epochs.push(dictionary.epoch());
        }
        self.whole.take(dictionary, events);
        if let Some(window) = self.windows.last_mut() {
            window.take(dictionary, events);
        }
    }

    fn epoch_ended(&mut self, dictionary: &Dictionary) {
        self.whole.epoch_ended(dictionary);
    }
}

impl Observer for Windows {
    fn go_on(&mut self, elapsed: Nanos) -> Directive {
        if elapsed < self.next {
            return Directive::Continue;
        }
        self.next += WINDOW;
        Directive::Cut { renew_dictionary: self.windows.len().is_multiple_of(WINDOWS_OF_EPOCH) }
    }

    fn was_cut(&mut self, at: Timestamp) {
        self.cuts.push(at);
        self.windows.push(Profile::new());
    }
}

/// CPU and wall time by thread and stack.
type Sums = BTreeMap<(Tid, Vec<String>), (u64, u64, u64)>;

fn sums(profile: &Profile) -> Sums {
    let mut sums = Sums::new();
    for tally in profile.tallies() {
        let name = |frame| profile.frame_of(frame).function.to_string();
        let stack = profile.root_first(tally.stack).into_iter().map(name).collect();
        let sum = sums.entry((profile.thread_of(tally.thread).key.tid, stack)).or_default();
        let weights = tally.weights;
        sum.0 += weights.samples;
        sum.1 += weights.cpu.as_nanos();
        sum.2 += weights.wall.as_nanos();
    }
    sums
}

/// Records the program in windows, with exact waits or without.
fn recorded(case: &Case, has_waits: bool) -> Result<Windows> {
    let fixture = Fixture::inline(case.interpreter, PROGRAM)?;
    let options = SamplerOptions {
        rate_hz: RATE_HZ,
        kind: match case.sampler() {
            Sampler::Bpf => SamplerKind::Bpf,
            _ => SamplerKind::Pause,
        },
        policy: if has_waits { CapturePolicy::All } else { CapturePolicy::Running },
        max_cpu: 1.0,
        native: false,
    };
    let mut session = Session::new(Target::attach(Pid::new(fixture.pid()))?, options);
    if options.kind == SamplerKind::Bpf {
        let mut program = match has_waits {
            true => BpfProgram::load_with_off_cpu(None, Nanos::ZERO)?,
            false => BpfProgram::load(None)?,
        };
        program.start(Nanos::from_nanos((1e9 / RATE_HZ) as u64))?;
        session.sample_by(program);
    }
    let mut windows = Windows::new();
    session.run(&mut windows, Some(DURATION));
    Ok(windows)
}

fn windows_add_up_to_the_recording(case: &Case, has_waits: bool) -> Result<Windows> {
    let recording = recorded(case, has_waits)?;
    let Windows { whole, windows, epochs, .. } = &recording;
    ensure!(windows.len() >= 10 && epochs.len() >= 3, "{} windows, {} epochs", windows.len(), epochs.len());
    let mut merged = Profile::new();
    windows.iter().for_each(|window| merged.merge(window));
    ensure!(sums(&merged) == sums(whole), "the windows hold something else");
    let (sum, ledger) = (merged.ledger(), whole.ledger());
    ensure!(sum.attempts() == ledger.attempts() && sum.losses() == ledger.losses(), "{sum:?} {ledger:?}");
    ensure!((sum.own_cpu, sum.target_cpu) == (ledger.own_cpu, ledger.target_cpu), "{sum:?} {ledger:?}");
    // A thread that was known in one epoch is the same one in the next.
    ensure!(whole.threads().len() <= 3, "{} threads", whole.threads().len());
    Ok(recording)
}

/// What samples stand for is what the target used, but for what they lost: nothing is lost or doubled at a cut.
fn cpu_time_is_whole(case: &Case) -> Result<()> {
    const BOUND: f64 = 0.15;
    let recording = windows_add_up_to_the_recording(case, false)?;
    let used: u64 = recording.whole.ledger().target_cpu.as_nanos();
    let lost = recording.whole.ledger().lost_cpu().as_nanos();
    let shown: u64 = recording.whole.tallies().iter().map(|tally| tally.weights.cpu.as_nanos()).sum();
    let share = (shown + lost) as f64 / used as f64;
    ensure!((share - 1.0).abs() < BOUND, "{shown} and {lost} of {used}: {:?}", recording.whole.ledger());
    Ok(())
}

/// Each thread has all of its time in each window, also one that waits through all of them.
fn waits_are_cut_with_their_windows(case: &Case) -> Result<()> {
    const BOUND: f64 = 0.02;
    let recording = windows_add_up_to_the_recording(case, true)?;
    let cuts = &recording.cuts;
    let lengths = cuts.windows(2).map(|pair| pair[1].since(pair[0]).as_nanos());
    let mut waited = Vec::new();
    for (window, length) in recording.windows[1..].iter().zip(lengths) {
        let of_deep = |tally: &&profiler_profile::Tally| {
            window.leaf_first(tally.stack).any(|frame| &*window.frame_of(frame).function == "deep")
        };
        let wall: u64 =
            window.tallies().iter().filter(of_deep).map(|tally| tally.weights.wall.as_nanos()).sum();
        waited.push((wall, length));
    }
    ensure!(waited.len() >= 10, "{waited:?}");
    let is_whole = |(wall, length): &(u64, u64)| (*wall as f64 / *length as f64 - 1.0).abs() < BOUND;
    ensure!(waited.iter().all(is_whole), "a wait is not cut where its window is: {waited:?}");
    Ok(())
}

/// A program that works in one thread all the time.
const BUSY: &str = "\
import os
print('ready', os.getpid(), flush=True)
def work():
    while True: pass
work()
";

/// The CPU time that the target uses while the ring is not read: it is full by then.
const ASLEEP: Nanos = Nanos::from_nanos(1_000_000_000);

/// How long is sampled after that.
const AWAKE: Duration = Duration::from_millis(300);

/// It has that by then, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sleeps once, for so long that the kernel's ring is full, and keeps what was lost by that.
struct Sleeper {
    process: Process,
    profile: Profile,
    naps: u32,
    woken: Option<Instant>,
    losses: Vec<Loss>,
}

impl Sink for Sleeper {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        self.profile.take(dictionary, events);
        let losses = events.iter().filter_map(|event| match event {
            Event::Loss(loss) if loss.reason == LossReason::BufferFull => Some(*loss),
            _ => None,
        });
        self.losses.extend(losses);
    }
}

impl Observer for Sleeper {
    fn go_on(&mut self, elapsed: Nanos) -> Directive {
        if self.naps == 0 && elapsed > WINDOW {
            self.naps += 1;
            let cpu = || self.process.cpu_time().unwrap_or_default();
            let (before, end) = (cpu(), Instant::now() + PATIENCE);
            while cpu().saturating_sub(before) < ASLEEP && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
            self.woken = Some(Instant::now());
        }
        if self.woken.is_some_and(|woken| woken.elapsed() > AWAKE) {
            Directive::End
        } else {
            Directive::Continue
        }
    }
}

/// What a full ring swallows has its thread and its time.
fn full_ring_loses_no_time_of_threads(case: &Case) -> Result<()> {
    const RATE_HZ: f64 = 20_000.0;
    const BOUND: f64 = 0.05;
    let fixture = Fixture::inline(case.interpreter, BUSY)?;
    let (kind, max_cpu) = (SamplerKind::Bpf, 1.0);
    let options =
        SamplerOptions { rate_hz: RATE_HZ, kind, policy: CapturePolicy::Running, max_cpu, native: false };
    let mut session = Session::new(Target::attach(Pid::new(fixture.pid()))?, options);
    let mut program = BpfProgram::load(None)?;
    program.start(Nanos::from_nanos((1e9 / RATE_HZ) as u64))?;
    session.sample_by(program);
    let process = Process::new(Pid::new(fixture.pid()));
    let mut sleeper = Sleeper { process, profile: Profile::new(), naps: 0, woken: None, losses: Vec::new() };
    session.run(&mut sleeper, None);
    let Sleeper { profile, losses, .. } = sleeper;
    let count: u64 = losses.iter().map(|loss| loss.count).sum();
    let of_threads: u64 =
        losses.iter().filter(|loss| matches!(loss.scope, Scope::Thread(_))).map(|loss| loss.count).sum();
    ensure!(count > 1_000 && of_threads as f64 > 0.99 * count as f64, "{of_threads} of {count}");
    let shown: u64 = profile.tallies().iter().map(|tally| tally.weights.cpu.as_nanos()).sum();
    let (lost, used) = (profile.ledger().lost_cpu().as_nanos(), profile.ledger().target_cpu.as_nanos());
    let share = (shown + lost) as f64 / used as f64;
    ensure!((share - 1.0).abs() < BOUND, "{shown} and {lost} of {used} ns: {:?}", profile.ledger());
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(cpu_time_is_whole).on(On::Layouts).by(PAUSE_AND_BPF),
        test!(full_ring_loses_no_time_of_threads).by(&[Sampler::Bpf]),
        test!(waits_are_cut_with_their_windows).on(On::Layouts).by(&[Sampler::Bpf]),
    ]
}
