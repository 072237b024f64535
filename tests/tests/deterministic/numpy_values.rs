//! NumPy's values, read of stored memory of a program with NumPy 1 and one with NumPy 2: every kind of scalar is written
//! as NumPy itself writes it, arrays by shape and type.

use anyhow::{Result, ensure};
use profiler_tests::account::StoredAccount;
use profiler_tests::account::numpy_values::NumpyValues;
use profiler_tests::snapshot::StoredId;
use profiler_tests::suite::Test;
use profiler_tests::test;

fn values(id: &StoredId) -> Result<()> {
    StoredAccount::<NumpyValues>::open(id)?.check()
}

fn both_majors_are_stored() -> Result<()> {
    let all = StoredAccount::<NumpyValues>::ids();
    for major in ["1.", "2."] {
        ensure!(all.iter().any(|(_, id)| id.as_str().starts_with(major)), "no NumPy {major}x in {all:?}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let mut tests = vec![test!(both_majors_are_stored)];
    tests.extend(Test::of_each("values", StoredAccount::<NumpyValues>::ids(), values));
    tests
}
