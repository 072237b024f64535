//! asyncio's tasks, read of stored memory of every interpreter that describes them: what each stands at, which awaits
//! which; and memory that lies is survived.

use anyhow::Result;
use profiler_tests::account::StoredAccount;
use profiler_tests::account::asyncio::{AsyncioTree, read_what_there_is};
use profiler_tests::damage::DamagePlan;
use profiler_tests::snapshot::StoredId;
use profiler_tests::suite::Test;

use profiler_tests::account::every_version_is_stored;

/// The first minor version whose tasks can be read from outside.
const FIRST_MINOR: u32 = 14;

/// How the stored memory is damaged; the seed is the minor version.
const DAMAGE: DamagePlan = DamagePlan { rounds: 1000, most_changes: 24, seed: 0 };

fn the_tree_is_what_the_program_made(id: &StoredId) -> Result<()> {
    StoredAccount::<AsyncioTree>::open(id)?.check()
}

fn damaged_memory_is_survived(id: &StoredId) -> Result<()> {
    let stored = StoredAccount::<AsyncioTree>::open(id)?;
    let memory = stored.memory.with_whole_pages();
    let (asyncio, offsets) = (stored.account.asyncio()?, stored.account.offsets(&memory)?);
    let tasks = stored.account.tasks(&memory)?;
    let plan = DamagePlan { seed: offsets.version.minor.into(), ..DAMAGE };
    plan.carry_out(&stored.memory, |memory, random| {
        // A list may lead anywhere, and round in circles.
        let _ = asyncio.thread_tasks(memory, tasks[(random % tasks.len() as u64) as usize]);
        read_what_there_is(memory, &offsets, &asyncio, &tasks)
    })
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    let each = StoredAccount::<AsyncioTree>::ids();
    let mut tests =
        vec![Test::new("every_version_is_stored", || every_version_is_stored::<AsyncioTree>(FIRST_MINOR))];
    tests.extend(Test::of_each(
        "the_tree_is_what_the_program_made",
        each.clone(),
        the_tree_is_what_the_program_made,
    ));
    tests.extend(Test::of_each("damaged_memory_is_survived", each, damaged_memory_is_survived));
    tests
}
