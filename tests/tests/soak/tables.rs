//! The tables of the fixtures on all their interpreters by both samplers.

use profiler_tests::suite::Test;
use profiler_tests::{Extent, table_tests, topics};

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let topics = topics::LANGUAGE.iter().chain(topics::SCIENCE);
    topics.flat_map(|topic| table_tests(topic, Extent::All)).collect()
}
