//! The fixtures whose expectation is a table.

/// Workloads of the standard library: what the language does, and how threads and processes wait.
pub const LANGUAGE: &[&str] = &[
    "any_search",
    "fibonacci",
    "sort_callbacks",
    "hashing",
    "day_pipeline",
    "sliding_window",
    "row_lists",
    "sums",
    "prime_check",
    "crawler",
    "process_locks",
    "stop_flags",
    "pool_chunks",
    "manager_queue",
    "monte_carlo",
    "c_binding",
    "event_loop",
];

/// Workloads that need packages: data frames, arrays, compiled code, HTTP, worker processes.
pub const SCIENCE: &[&str] =
    &["ols", "rows", "strings", "jit", "arrays", "anomalies", "bindings", "http", "process_trees"];
