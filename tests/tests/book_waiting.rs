//! Workloads that wait: for a server, for locks, for other processes, for the GIL; each against the table of
//! its fixture.

use profiler_tests::check_table;

#[test]
fn requests_to_a_slow_server_and_hashes_in_between() {
    check_table("crawler");
}

#[test]
fn processes_that_fight_for_a_lock() {
    check_table("process_locks");
}

#[test]
fn flags_in_a_manager_and_in_shared_memory() {
    check_table("stop_flags");
}

#[test]
fn a_pool_that_gets_its_work_in_small_pieces() {
    check_table("pool_chunks");
}

#[test]
fn a_manager_that_is_the_bottleneck() {
    check_table("manager_queue");
}

#[test]
fn darts_thrown_by_processes_and_by_threads() {
    check_table("monte_carlo");
}

#[test]
fn a_c_function_with_and_without_the_gil() {
    check_table("c_binding");
}

#[test]
fn callbacks_of_an_event_loop() {
    check_table("event_loop");
}
