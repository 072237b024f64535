//! Strings, code objects and thread names, read of stored memory of every interpreter, are what the process itself
//! reported.

use anyhow::Result;
use profiler_tests::account::StoredAccount;
use profiler_tests::account::objects::Objects;
use profiler_tests::snapshot::StoredId;
use profiler_tests::suite::Test;

use profiler_tests::account::every_version_is_stored;

fn strings_code_objects_and_thread_names(id: &StoredId) -> Result<()> {
    StoredAccount::<Objects>::open(id)?.check()
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let each = StoredAccount::<Objects>::ids();
    let mut tests = vec![Test::new("every_version_is_stored", || every_version_is_stored::<Objects>(6))];
    tests.extend(Test::of_each(
        "strings_code_objects_and_thread_names",
        each,
        strings_code_objects_and_thread_names,
    ));
    tests
}
