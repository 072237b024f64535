//! Cases that were counted wrongly before, or that the law is about in particular.

use profiler_model::LossReason;

use super::machine::{Machine, ROOT};
use super::sim_process::Program;
use super::{Happening, NewProgram, Played, Script, play, play_on};

const PYTHON: (Program, bool) = (Program::Python { up_at: 0 }, true);
const OTHER: (Program, bool) = (Program::Other, false);
const CHILD: u32 = 2;
const MILLISECOND: u64 = 1_000_000;

fn forks(delay: u64) -> Happening {
    Happening::Forks { child: CHILD, threads: 1, delay }
}

fn is_sampled(instants: u32) -> Happening {
    Happening::IsSampled { instants, late: 0 }
}

/// Plays the script where the tree reports all changes; the law holds.
fn played(script: Script, root: (Program, bool)) -> Played {
    let played = play(&script, root, true, false);
    assert_eq!(played.ledger.attempts(), played.attempts, "{:?}", played.ledger.losses());
    played
}

#[test]
fn process_without_python_loses_nothing() {
    let ledger = played(vec![(0, ROOT, is_sampled(10))], OTHER).ledger;
    assert_eq!((ledger.attempts(), ledger.processes.unwrap().without_python), (0, 1));
}

#[test]
fn process_that_may_not_be_read_is_counted_as_such() {
    let script = vec![(0, ROOT, Happening::Executes(NewProgram::Forbidden)), (0, ROOT, is_sampled(10))];
    let ledger = played(script, OTHER).ledger;
    assert_eq!((ledger.attempts(), ledger.processes.unwrap().not_permitted), (0, 1));
}

#[test]
fn sampled_process_that_ended_before_a_late_look_loses_its_instants() {
    let script = vec![
        (0, ROOT, forks(0)),
        (0, ROOT, is_sampled(3)),
        (5 * MILLISECOND, CHILD, Happening::Ends { is_delayed: false }),
        (0, ROOT, is_sampled(8)),
    ];
    let lost = played(script, PYTHON).ledger.lost_for(LossReason::ProcessEnded);
    assert!((3..=8).contains(&lost), "{lost}");
}

#[test]
fn fork_that_was_never_looked_at_loses_its_instants_only() {
    let script = vec![
        (0, ROOT, is_sampled(1)),
        (5 * MILLISECOND, ROOT, forks(0)),
        (5 * MILLISECOND, CHILD, Happening::Ends { is_delayed: false }),
        (5 * MILLISECOND, ROOT, is_sampled(20)),
    ];
    let lost = played(script, PYTHON).ledger.lost_for(LossReason::ShortLived);
    assert!((3..=8).contains(&lost), "{lost}");
}

#[test]
fn fork_loses_what_was_before_its_exec() {
    let script = vec![
        (0, ROOT, is_sampled(1)),
        (0, ROOT, forks(0)),
        (5 * MILLISECOND, CHILD, Happening::Executes(NewProgram::Other)),
        (0, ROOT, is_sampled(8)),
    ];
    let lost = played(script, PYTHON).ledger.lost_for(LossReason::ShortLived);
    assert!((3..=8).contains(&lost), "{lost}");
}

#[test]
fn instants_left_out_before_an_exec_are_counted_once() {
    let script = vec![
        (0, ROOT, is_sampled(1)),
        (0, ROOT, Happening::PartIsSampled(1)),
        (0, ROOT, is_sampled(2)),
        (10 * MILLISECOND, ROOT, Happening::Executes(NewProgram::Python { delay: 0 })),
        (0, ROOT, is_sampled(3)),
    ];
    assert!(played(script, PYTHON).ledger.lost_for(LossReason::CpuLimit) > 10);
}

#[test]
fn silent_process_loses_its_instants_up_to_an_exec() {
    let script = vec![
        (0, ROOT, is_sampled(2)),
        (0, ROOT, Happening::FallsSilent),
        (0, ROOT, is_sampled(10)),
        (0, ROOT, Happening::Executes(NewProgram::Other)),
        (0, ROOT, is_sampled(10)),
    ];
    assert_eq!(played(script, PYTHON).ledger.lost_for(LossReason::NoAnswer), 10);
}

#[test]
fn fork_whose_python_cannot_be_read_at_first_loses_those_instants() {
    let script =
        vec![(0, ROOT, is_sampled(1)), (0, ROOT, forks(20 * MILLISECOND)), (0, ROOT, is_sampled(60))];
    assert!(played(script, PYTHON).ledger.lost_for(LossReason::NoRuntime) > 10);
}

#[test]
fn fork_that_is_pending_at_the_end_loses_its_instants() {
    let script =
        vec![(0, ROOT, is_sampled(1)), (0, ROOT, forks(900 * MILLISECOND)), (0, ROOT, is_sampled(9))];
    assert!(played(script, PYTHON).ledger.lost_for(LossReason::NoRuntime) >= 9);
}

#[test]
fn cut_takes_no_sample() {
    let cut = Happening::IsReported { is_cut: true, renew: true };
    let script = vec![(0, ROOT, is_sampled(2)), (0, ROOT, cut), (0, ROOT, cut), (0, ROOT, is_sampled(2))];
    assert_eq!(play(&script, PYTHON, true, true).ledger.shown(), 4);
}

#[test]
fn single_process_loses_nothing_after_its_end() {
    let mut machine = Machine::new(false, PYTHON.0, PYTHON.1);
    machine.is_tree = false;
    let script = vec![
        (0, ROOT, is_sampled(3)),
        (0, ROOT, Happening::Ends { is_delayed: false }),
        (50 * MILLISECOND, ROOT, is_sampled(1)),
    ];
    let ledger = play_on(machine, &script, true, false).ledger;
    assert_eq!((ledger.shown(), ledger.lost()), (3, 0));
}

#[test]
fn late_instants_before_a_look_without_python_are_not_lost() {
    let script = vec![
        (5_223_991, ROOT, Happening::IsPolled),
        (1_779_378, ROOT, Happening::IsPolled),
        (1_253_762, ROOT, Happening::IsReported { is_cut: false, renew: false }),
        (808_763, ROOT, forks(0)),
        (1_038_097, ROOT, is_sampled(1)),
        (0, ROOT, Happening::LosesPython { delay: 33_440_817 }),
        (13_645_716, ROOT, is_sampled(1)),
        (19_535_101, ROOT, is_sampled(1)),
    ];
    played(script, (Program::Python { up_at: 1_010_000_000 }, false));
}

#[test]
fn removed_process_loses_instants_that_passed_before() {
    let added = Happening::IsAdded { program: NewProgram::Python { delay: 0 }, is_single: true };
    let script = vec![
        (0, CHILD, added),
        (0, ROOT, is_sampled(5)),
        (10 * MILLISECOND, CHILD, Happening::IsRemoved),
        (0, ROOT, is_sampled(20)),
    ];
    let lost = played(script, OTHER).ledger.lost_for(LossReason::Late);
    assert!((5..=15).contains(&lost), "{lost}");
}

#[test]
fn process_added_alone_owes_instants_of_before_its_python() {
    let added = |delay, is_single| Happening::IsAdded { program: NewProgram::Python { delay }, is_single };
    let script = vec![
        (851_818, ROOT, Happening::IsPolled),
        (1_426_296, CHILD, added(0, false)),
        (0, CHILD + 1, added(2_715_718, true)),
        (0, ROOT, Happening::RateIsSet(100)),
        (733_779, ROOT, is_sampled(2)),
        (0, ROOT, Happening::PartIsSampled(25)),
        (0, ROOT, Happening::FallsSilent),
        (364_444, ROOT, Happening::AttachCosts(3_534_682)),
        (856_292, ROOT, Happening::Executes(NewProgram::Python { delay: 164_583 })),
        (144_582, CHILD + 1, Happening::IsRemoved),
    ];
    let played = play(&script, PYTHON, false, false);
    assert_eq!(played.ledger.attempts(), played.attempts, "{:?}", played.ledger.losses());
}
