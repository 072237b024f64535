//! The processes of a session on a scripted machine: they are born, run other programs, become Pythons and end, whenever and in
//! whatever order; the sampler is punctual, late, suspended or at its CPU limit; dictionaries are cut and renewed. Whatever happens,
//! there is one event for each instant that was due in the life of a Python.

mod cases;
mod law;
mod machine;
mod sim_process;
mod sim_sampler;

use profiler_account::Schedule;
use profiler_model::{Pid, Timestamp};
use profiler_profile::{Dictionary, Event, Ledger, Scope, Sink};
use proptest::prelude::*;

use self::law::DueInstant;
use self::machine::{Machine, ROOT};
use self::sim_process::{Program, SimProcess};
use super::{ProcessSet, ScheduledInstants};
use crate::event_writer::EventWriter;

/// The sample rate.
const RATE_HZ: f64 = 1000.0;
/// Ids of processes are below this.
const PIDS: u32 = 6;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A process forks another one, whose Python can be read after `delay`.
    Forks { child: u32, threads: u64, delay: u64 },
    /// A process runs another program.
    Executes(NewProgram),
    /// A process ends. That may be reported only after the next look.
    Ends { is_delayed: bool },
    /// Its memory does not answer any more.
    FallsSilent,
    /// Its Python is gone for so long.
    LosesPython { delay: u64 },
    /// So many instants are sampled, each this late.
    IsSampled { instants: u32, late: u64 },
    /// The sampler comes to one instant, if it is due.
    IsPolled,
    /// The tree is followed and all is reported between instants, and perhaps cut, with another dictionary or not.
    IsReported { is_cut: bool, renew: bool },
    /// The profiler was suspended for so long.
    IsSuspended(u64),
    /// A process is added that was started elsewhere.
    IsAdded { program: NewProgram, is_single: bool },
    /// An added process and its descendants are not sampled any more.
    IsRemoved,
    /// The sample rate changes to this many samples per second.
    RateIsSet(u32),
    /// This part of the instants is sampled, in percent.
    PartIsSampled(u32),
    /// What attempts to attach cost from now on.
    AttachCosts(u64),
}

/// What a process runs after an `exec`.
#[derive(Clone, Copy, Debug)]
enum NewProgram {
    Python { delay: u64 },
    Other,
    Forbidden,
    Silent,
}

impl NewProgram {
    fn at(self, now: u64) -> Program {
        match self {
            NewProgram::Python { delay } => Program::Python { up_at: now + delay },
            NewProgram::Other => Program::Other,
            NewProgram::Forbidden => Program::Forbidden,
            NewProgram::Silent => Program::Silent,
        }
    }
}

/// What happens after a pause, and to which process if to one.
type Script = Vec<(u64, u32, Happening)>;

fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..3_000_000u64, 0..60_000_000u64]
}

fn new_program() -> impl Strategy<Value = NewProgram> {
    prop_oneof![
        4 => delay().prop_map(|delay| NewProgram::Python { delay }),
        2 => Just(NewProgram::Other),
        1 => Just(NewProgram::Forbidden),
        1 => Just(NewProgram::Silent),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    let fork = (ROOT + 1..PIDS, 1..4u64, delay());
    prop_oneof![
        6 => fork.prop_map(|(child, threads, delay)| Happening::Forks { child, threads, delay }),
        4 => new_program().prop_map(Happening::Executes),
        4 => any::<bool>().prop_map(|is_delayed| Happening::Ends { is_delayed }),
        1 => Just(Happening::FallsSilent),
        2 => delay().prop_map(|delay| Happening::LosesPython { delay }),
        8 => (1..20u32, 0..200_000u64).prop_map(|(instants, late)| Happening::IsSampled { instants, late }),
        6 => Just(Happening::IsPolled),
        3 => any::<(bool, bool)>().prop_map(|(is_cut, renew)| Happening::IsReported { is_cut, renew }),
        1 => (0..100_000_000u64).prop_map(Happening::IsSuspended),
        1 => (1..=100u32).prop_map(Happening::PartIsSampled),
        2 => (new_program(), any::<bool>())
            .prop_map(|(program, is_single)| Happening::IsAdded { program, is_single }),
        1 => Just(Happening::IsRemoved),
        1 => (100..3000u32).prop_map(Happening::RateIsSet),
        1 => (0..5_000_000u64).prop_map(Happening::AttachCosts),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let pause = prop_oneof![4 => 0..2_000_000u64, 1 => 0..50_000_000u64];
    prop::collection::vec((pause, ROOT..PIDS, happening()), 1..60)
}

/// What the root runs at first, and whether its Python is known.
fn root() -> impl Strategy<Value = (Program, bool)> {
    prop_oneof![
        2 => Just((Program::Python { up_at: 0 }, true)),
        1 => Just((Program::Python { up_at: 1_010_000_000 }, false)),
        1 => Just((Program::Other, false)),
    ]
}

/// Sums what was written, and takes care that each id is one of its dictionary.
#[derive(Debug, Default)]
struct Recorder {
    ledger: Ledger,
}

impl Sink for Recorder {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        for event in events {
            self.ledger.add(event);
            match event {
                Event::Sample(sample) => drop(dictionary.thread_of(sample.sample.thread).clone()),
                Event::Loss(loss) => check_scope(dictionary, loss.scope),
                Event::Skip(skip) => check_scope(dictionary, skip.scope),
                _ => {}
            }
        }
    }
}

fn check_scope(dictionary: &Dictionary, scope: Scope) {
    match scope {
        Scope::Session => {}
        Scope::Process(process) => assert!(dictionary.process_of(process).pid.as_u32() < PIDS),
        Scope::Thread(thread) => assert!(dictionary.thread_of(thread).key.pid.as_u32() < PIDS),
    }
}

/// A session on the machine, with the instants that were due, in the order in which the session came to them.
struct Player<'a> {
    processes: ProcessSet<Machine>,
    clock: ScheduledInstants,
    events: EventWriter<'a>,
    instants: Vec<DueInstant>,
    has_cuts: bool,
}

impl Player<'_> {
    fn machine(&mut self) -> &mut Machine {
        self.processes.parts().0
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.processes.host().clock)
    }

    /// Takes note of instants at which nothing is looked at.
    fn pass(&mut self, instants: Vec<Timestamp>) {
        let passed = |at: Timestamp| DueInstant { at: at.as_nanos(), is_looked_at: false };
        self.instants.extend(instants.into_iter().map(passed));
    }

    /// Comes to the next instant, if it is due.
    fn poll(&mut self) {
        let (now, mut schedule) = (self.now(), self.clock.schedule_mut().clone());
        if now < schedule.next() {
            return;
        }
        self.pass(schedule.take_left_out_until(now));
        let due = schedule.next().as_nanos();
        self.machine().due = (self.instants.len(), due);
        self.instants.push(DueInstant { at: due, is_looked_at: true });
        self.machine().is_looking = true;
        self.clock.poll(&mut self.processes, &mut self.events, now);
        self.machine().is_looking = false;
        let mut late = Vec::new();
        schedule.go_on_telling(self.now(), &mut |at| late.push(at));
        self.pass(late);
    }

    fn report(&mut self, is_cut: bool, renew: bool) {
        let (now, mut schedule) = (self.now(), self.clock.schedule_mut().clone());
        self.pass(schedule.take_left_out_until(now));
        self.clock.follow(&mut self.processes, &mut self.events, now);
        self.processes.resolve_pending(&mut self.events);
        self.processes.report(&mut self.events, now);
        if is_cut && self.has_cuts && renew {
            self.events.renew_dictionary(|renaming| self.processes.rename(renaming));
        }
    }

    /// As the engine does.
    fn remove(&mut self, root: u32) {
        self.poll();
        let (now, mut schedule) = (self.now(), self.clock.schedule_mut().clone());
        self.pass(schedule.take_left_out_until(now));
        self.clock.follow(&mut self.processes, &mut self.events, now);
        self.processes.remove_root(&mut self.events, Pid::new(root));
    }

    fn set_rate(&mut self, rate_hz: f64) {
        let now = self.now();
        self.clock.set_rate(&mut self.processes, rate_hz, now);
    }

    fn happen(&mut self, pid: u32, happening: Happening) {
        let now = self.now().as_nanos();
        match happening {
            Happening::Forks { child, threads, delay } => self.machine().fork(pid, child, threads, delay),
            Happening::Executes(program) => self.machine().execute(pid, program.at(now)),
            Happening::Ends { is_delayed } => self.machine().end(pid, is_delayed),
            Happening::FallsSilent => self.machine().set_program(pid, Program::Silent),
            Happening::LosesPython { delay } => {
                self.machine().set_program(pid, Program::Python { up_at: now + delay });
            }
            Happening::IsSampled { instants, late } => {
                for _ in 0..instants {
                    let next = self.clock.next().as_nanos() + late;
                    self.machine().clock = next.max(self.now().as_nanos());
                    self.poll();
                }
            }
            Happening::IsPolled => self.poll(),
            Happening::IsReported { is_cut, renew } => self.report(is_cut, renew),
            Happening::IsSuspended(time) => {
                self.machine().clock += time;
                let now = self.now();
                self.clock.resume_from(&mut self.processes, &mut self.events, now);
            }
            Happening::PartIsSampled(percent) => {
                self.clock.sample_part(&mut self.processes, f64::from(percent) / 100.0)
            }
            Happening::IsAdded { program, is_single } => {
                if self.machine().start(pid, program.at(now), is_single) {
                    self.processes.add_root(Pid::new(pid), None, !is_single);
                }
            }
            Happening::IsRemoved => self.remove(pid),
            Happening::RateIsSet(rate_hz) => self.set_rate(f64::from(rate_hz)),
            Happening::AttachCosts(cost) => self.machine().attach_cost = cost,
        }
    }

    fn end(&mut self) {
        self.report(false, false);
        let (end, mut schedule) = (self.now(), self.clock.schedule_mut().clone());
        let mut late = Vec::new();
        schedule.pass_until(end, &mut |at| late.push(at));
        self.pass(late);
        self.pass(schedule.take_left_out_until(end));
        self.clock.end(&mut self.processes, &mut self.events, end);
        self.processes.release_all(&mut self.events, end);
        self.events.flush();
    }
}

/// What came of a script.
struct Played {
    ledger: Ledger,
    processes: Vec<SimProcess>,
    /// The attempts that there must be.
    attempts: u64,
}

fn play(script: &Script, (root, is_known): (Program, bool), reports: bool, has_cuts: bool) -> Played {
    play_on(Machine::new(reports, root, is_known), script, is_known, has_cuts)
}

fn play_on(machine: Machine, script: &Script, is_known: bool, has_cuts: bool) -> Played {
    let (mut recorder, mut dictionary) = (Recorder::default(), Dictionary::default());
    let start = Timestamp::from_nanos(machine.clock);
    let mut processes = ProcessSet::new(machine);
    let is_tree = processes.host().is_tree;
    processes.add_root(Pid::new(ROOT), is_known.then_some(()), is_tree);
    let mut player = Player {
        processes,
        clock: ScheduledInstants::new(Schedule::new(RATE_HZ, start, 7)),
        events: EventWriter::new(&mut dictionary, &mut recorder),
        instants: Vec::new(),
        has_cuts,
    };
    for (pause, pid, happening) in script {
        player.machine().clock += pause;
        player.happen(*pid, *happening);
    }
    player.machine().clock += 5_000_000;
    player.end();
    let instants = std::mem::take(&mut player.instants);
    let machine = player.processes.host();
    let processes: Vec<SimProcess> = machine
        .processes
        .values()
        .chain(&machine.reused)
        .filter(|process| !process.phases.is_empty())
        .cloned()
        .collect();
    let phases = processes.iter().flat_map(|process| &process.phases);
    let attempts = phases.map(|phase| phase.attempts(&instants)).sum::<u64>() + machine.more_samples;
    Played { ledger: recorder.ledger, processes, attempts }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn each_instant_of_a_python_has_one_event(script in script(), root in root()) {
        let played = play(&script, root, true, true);
        prop_assert_eq!(played.ledger.attempts(), played.attempts, "{:?}", played.ledger.losses());
    }

    #[test]
    fn unreported_changes_cost_no_instant(script in script(), root in root()) {
        let played = play(&script, root, false, true);
        prop_assert_eq!(played.ledger.attempts(), played.attempts, "{:?}", played.ledger.losses());
    }

    #[test]
    fn each_process_is_counted_once(script in script(), root in root(), reports in any::<bool>()) {
        let played = play(&script, root, reports, true);
        let counts = played.ledger.processes.unwrap();
        let sampled = played.processes.iter().filter(|process| process.was_sampled).count();
        prop_assert_eq!(counts.found(), played.processes.len() as u64);
        prop_assert_eq!(counts.sampled, sampled as u64);
    }

    #[test]
    fn cuts_change_no_sum(script in script(), root in root(), reports in any::<bool>()) {
        let (cut, whole) = (play(&script, root, reports, true), play(&script, root, reports, false));
        prop_assert_eq!(cut.ledger, whole.ledger);
    }
}
