//! Workloads that wait: for a server, for locks, for other processes, for the GIL; each against the table of
//! its fixture.

use profiler_tests::check_table;
use profiler_tests::suite::Test;
use profiler_tests::test;

fn requests_to_a_slow_server_and_hashes_in_between() {
    check_table("crawler");
}

fn processes_that_fight_for_a_lock() {
    check_table("process_locks");
}

fn flags_in_a_manager_and_in_shared_memory() {
    check_table("stop_flags");
}

fn a_pool_that_gets_its_work_in_small_pieces() {
    check_table("pool_chunks");
}

fn a_manager_that_is_the_bottleneck() {
    check_table("manager_queue");
}

fn darts_thrown_by_processes_and_by_threads() {
    check_table("monte_carlo");
}

fn a_c_function_with_and_without_the_gil() {
    check_table("c_binding");
}

fn callbacks_of_an_event_loop() {
    check_table("event_loop");
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(requests_to_a_slow_server_and_hashes_in_between),
        test!(processes_that_fight_for_a_lock),
        test!(flags_in_a_manager_and_in_shared_memory),
        test!(a_pool_that_gets_its_work_in_small_pieces),
        test!(a_manager_that_is_the_bottleneck),
        test!(darts_thrown_by_processes_and_by_threads),
        test!(a_c_function_with_and_without_the_gil),
        test!(callbacks_of_an_event_loop),
    ]
}
