//! Workloads of the language itself (loops, comprehensions, generators, callbacks from C), each against the
//! table of its fixture.

use profiler_tests::check_table;

#[test]
fn any_of_a_generator_or_of_a_list() {
    check_table("any_search");
}

#[test]
fn long_numbers_in_a_list_or_from_a_generator_and_three_shapes() {
    check_table("fibonacci");
}

#[test]
fn sorting_calls_back() {
    check_table("sort_callbacks");
}

#[test]
fn good_and_bad_hashes() {
    check_table("hashing");
}
