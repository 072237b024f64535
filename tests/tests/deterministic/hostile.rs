//! What is printed without a target, where nobody reads it.

use anyhow::Result;
use profiler_tests::streams::must_need_no_reader;
use profiler_tests::suite::Test;
use profiler_tests::test;

fn printed_words_need_no_reader() -> Result<()> {
    for words in ["completions bash", "man", "--help", "record --help", "--version"] {
        must_need_no_reader(words)?;
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![test!(printed_words_need_no_reader)]
}
