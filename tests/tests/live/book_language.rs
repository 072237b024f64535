//! Workloads of the language itself (loops, comprehensions, generators, callbacks from C), each against the
//! table of its fixture.

use profiler_tests::check_table;
use profiler_tests::suite::Test;
use profiler_tests::test;

fn any_of_a_generator_or_of_a_list() {
    check_table("any_search");
}

fn long_numbers_in_a_list_or_from_a_generator_and_three_shapes() {
    check_table("fibonacci");
}

fn sorting_calls_back() {
    check_table("sort_callbacks");
}

fn good_and_bad_hashes() {
    check_table("hashing");
}

fn a_pipeline_of_generators() {
    check_table("day_pipeline");
}

fn a_window_that_is_copied() {
    check_table("sliding_window");
}

fn rows_of_lists_and_what_measuring_them_costs() {
    check_table("row_lists");
}

fn sums_in_python_and_in_c_and_asleep() {
    check_table("sums");
}

fn primes_in_one_thread_and_in_three() {
    check_table("prime_check");
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(any_of_a_generator_or_of_a_list),
        test!(long_numbers_in_a_list_or_from_a_generator_and_three_shapes),
        test!(sorting_calls_back),
        test!(good_and_bad_hashes),
        test!(a_pipeline_of_generators),
        test!(a_window_that_is_copied),
        test!(rows_of_lists_and_what_measuring_them_costs),
        test!(sums_in_python_and_in_c_and_asleep),
        test!(primes_in_one_thread_and_in_three),
    ]
}
