//! The variables of frames, read of stored memory of every interpreter: values are what the program reported, parameters
//! are marked, and memory that lies is survived.

use anyhow::{Result, ensure};
use profiler_tests::account::locals::Locals;
use profiler_tests::account::{Account, StoredAccount};
use profiler_tests::damage::DamagePlan;
use profiler_tests::snapshot::StoredId;
use profiler_tests::suite::Test;

use profiler_tests::account::every_version_is_stored;

/// How the stored memory is damaged; the seed is the minor version.
const DAMAGE: DamagePlan = DamagePlan { rounds: 300, most_changes: 48, seed: 0 };

/// Fewer variables than the program has.
const MANY: usize = 60;

fn values(id: &StoredId) -> Result<()> {
    let stored = StoredAccount::<Locals>::open(id)?;
    let memory = stored.memory.with_whole_pages();
    stored.account.values_agree(&memory, &memory)
}

fn parameters_are_marked(id: &StoredId) -> Result<()> {
    let stored = StoredAccount::<Locals>::open(id)?;
    let memory = stored.memory.with_whole_pages();
    stored.account.parameters_are_marked(&memory, &memory)
}

fn damaged_memory_is_survived(id: &StoredId) -> Result<()> {
    let stored = StoredAccount::<Locals>::open(id)?;
    let memory = stored.memory.with_whole_pages();
    let anchors = stored.account.walked().expect("an account with a stack");
    let offsets = anchors.offsets(&memory)?;
    let whole = stored.account.read_what_there_is(&memory, &offsets);
    ensure!(whole.len() > MANY, "{whole:?}");
    let plan = DamagePlan { seed: offsets.version.minor.into(), ..DAMAGE };
    plan.carry_out(&stored.memory, |memory, _| stored.account.read_what_there_is(memory, &offsets))
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let each = StoredAccount::<Locals>::ids();
    let mut tests = vec![Test::new("every_version_is_stored", || every_version_is_stored::<Locals>(6))];
    tests.extend(Test::of_each("values", each.clone(), values));
    tests.extend(Test::of_each("parameters_are_marked", each.clone(), parameters_are_marked));
    tests.extend(Test::of_each("damaged_memory_is_survived", each, damaged_memory_is_survived));
    tests
}
