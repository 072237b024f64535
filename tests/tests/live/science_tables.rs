//! The workloads that need packages: data frames, arrays, compiled code, HTTP, worker processes, in an
//! environment of their own.

use profiler_tests::check_table;
use profiler_tests::suite::Test;
use profiler_tests::test;

fn least_squares_of_a_library_and_by_hand() {
    check_table("ols");
}

fn rows_of_a_data_frame() {
    check_table("rows");
}

fn string_methods_on_one_line() {
    check_table("strings");
}

fn compiled_when_first_called() {
    check_table("jit");
}

fn arrays_with_and_without_python_above() {
    check_table("arrays");
}

fn a_lazy_pipeline_with_statistics() {
    check_table("anomalies");
}

fn one_kernel_behind_many_bindings() {
    check_table("bindings");
}

fn requests_to_a_server_that_takes_its_time() {
    check_table("http");
}

fn workers_of_libraries() {
    check_table("process_trees");
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(least_squares_of_a_library_and_by_hand),
        test!(rows_of_a_data_frame),
        test!(string_methods_on_one_line),
        test!(compiled_when_first_called),
        test!(arrays_with_and_without_python_above),
        test!(a_lazy_pipeline_with_statistics),
        test!(one_kernel_behind_many_bindings),
        test!(requests_to_a_server_that_takes_its_time),
        test!(workers_of_libraries),
    ]
}
