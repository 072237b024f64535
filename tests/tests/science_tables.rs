//! The workloads that need packages: data frames, arrays, compiled code, HTTP, worker processes, in an
//! environment of their own.

use profiler_tests::check_table;

#[test]
fn least_squares_of_a_library_and_by_hand() {
    check_table("ols");
}

#[test]
fn rows_of_a_data_frame() {
    check_table("rows");
}

#[test]
fn string_methods_on_one_line() {
    check_table("strings");
}

#[test]
fn compiled_when_first_called() {
    check_table("jit");
}

#[test]
fn arrays_with_and_without_python_above() {
    check_table("arrays");
}

#[test]
fn a_lazy_pipeline_with_statistics() {
    check_table("anomalies");
}

#[test]
fn one_kernel_behind_many_bindings() {
    check_table("bindings");
}

#[test]
fn requests_to_a_server_that_takes_its_time() {
    check_table("http");
}

#[test]
fn workers_of_libraries() {
    check_table("process_trees");
}
