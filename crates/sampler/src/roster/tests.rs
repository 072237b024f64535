//! A roster follows the kernel threads of this process, which come and go.

use std::collections::HashSet;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use profiler_os::{Process, clock};

use super::*;

/// A thread of this process that sleeps until it is asked to end.
struct Sleeper {
    tid: Tid,
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Sleeper {
    fn start() -> Self {
        let ((tell, told), (end, ended)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            tell.send(own_tid()).unwrap();
            ended.recv().unwrap();
        });
        Sleeper { tid: told.recv().unwrap(), end, thread }
    }

    /// Ends it. The kernel still lists a thread for a moment after its end was announced.
    fn end(self) {
        self.end.send(()).unwrap();
        self.thread.join().unwrap();
        while own_process().threads().unwrap().contains(&self.tid) {
            std::thread::yield_now();
        }
    }
}

/// The kernel thread that runs this.
fn own_tid() -> Tid {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    Tid::new(link.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

fn own_pid() -> Pid {
    Pid::new(std::process::id())
}

fn own_process() -> Process {
    Process::new(own_pid())
}

/// Brings the roster up to date with those threads of this process that are among `tids`: other tests may run others.
fn update(roster: &mut Roster<KernelThread>, tids: &[Tid]) -> bool {
    let mut threads = own_process().threads().unwrap();
    threads.retain(|tid| tids.contains(tid));
    roster.update(own_pid(), &threads, clock::now())
}

fn slot_of(roster: &Roster<KernelThread>, tid: Tid) -> Option<ThreadSlot> {
    roster.threads().iter().find(|thread| thread.tid == tid).map(|thread| thread.slot)
}

#[test]
fn roster_meets_new_threads_and_drops_ended_ones() {
    let mut roster = Roster::default();
    let (first, second) = (Sleeper::start(), Sleeper::start());
    let before = [first.tid, second.tid];
    assert!(update(&mut roster, &before));
    assert!(!update(&mut roster, &before), "the same threads");
    let slot_of_second = slot_of(&roster, second.tid);
    assert_eq!(roster.threads().len(), 2);

    let third = Sleeper::start();
    let tids = [first.tid, second.tid, third.tid];
    first.end();
    assert!(update(&mut roster, &tids));
    let there: HashSet<Tid> = roster.threads().iter().map(|thread| thread.tid).collect();
    assert_eq!(there, HashSet::from([second.tid, third.tid]));
    assert_eq!(slot_of(&roster, second.tid), slot_of_second, "it is the same thread");
    assert_eq!(slot_of(&roster, third.tid), Some(ThreadSlot(3)), "no slot is used again");

    second.end();
    third.end();
    assert!(update(&mut roster, &tids));
    assert!(roster.threads().is_empty());
}

#[test]
fn unseen_instants_of_ended_threads_are_counted_once() {
    let mut roster = Roster::default();
    let (first, second) = (Sleeper::start(), Sleeper::start());
    let tids = [first.tid, second.tid];
    update(&mut roster, &tids);
    for _ in 0..3 {
        roster.rota.begin();
    }
    first.end();
    update(&mut roster, &tids);
    assert_eq!(roster.take_unseen_of_ended(), 3);
    assert_eq!(roster.take_unseen_of_ended(), 0);
    let threads = roster.take_all();
    roster.add(threads);
    assert_eq!(roster.take_unseen_of_ended(), 0, "the second thread has not ended");
    second.end();
}

#[test]
fn look_finds_the_threads_that_have_ended() {
    let mut roster = Roster::default();
    let (first, second) = (Sleeper::start(), Sleeper::start());
    let tids = [first.tid, second.tid];
    update(&mut roster, &tids);
    assert!(roster.look_at_active().is_empty());
    assert_eq!(roster.looked(), [0, 1]);
    let index_of_first = roster.threads().iter().position(|thread| thread.tid == first.tid).unwrap();
    first.end();
    assert_eq!(roster.look_at_active(), [index_of_first]);
    roster.remove(&[index_of_first]);
    assert!(!update(&mut roster, &tids), "it is removed already");
    assert_eq!(roster.looked(), [0], "the second thread was looked at at this instant");
    assert_eq!(roster.take_unseen_of_ended(), 0, "there was a look at each instant");
    second.end();
}

/// The unseen instants of the thread `tid`, asleep and unknown, after a look that skips four instants. The looks before it go on
/// until the thread rests, or does not.
fn unseen_of_four_skipped(tid: Tid, rests: bool) -> (u64, u64) {
    let mut roster = Roster::default();
    update(&mut roster, &[tid]);
    let thread = &mut roster.threads_mut()[0];
    let mut instant = 1;
    while thread.look_at(instant).unwrap().rests != rests {
        instant += 1;
    }
    assert_eq!((thread.take_unseen_asleep(), thread.looks.take_unknown()), (0, 0));
    thread.look_at(instant + 5).unwrap();
    (thread.take_unseen_asleep(), thread.looks.take_unknown())
}

#[test]
fn skipped_instants_of_a_sleeping_thread_are_asleep() {
    let sleeper = Sleeper::start();
    assert_eq!(unseen_of_four_skipped(sleeper.tid, true), (4, 0));
    sleeper.end();
}

#[test]
fn skipped_instants_of_a_running_thread_are_unknown() {
    let (tell, told) = channel();
    let (end, ended) = channel::<()>();
    let spinner = std::thread::spawn(move || {
        tell.send(own_tid()).unwrap();
        while ended.try_recv().is_err() {
            std::hint::spin_loop();
        }
    });
    assert_eq!(unseen_of_four_skipped(told.recv().unwrap(), false), (0, 4));
    end.send(()).unwrap();
    spinner.join().unwrap();
}
