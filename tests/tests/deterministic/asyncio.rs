//! asyncio's tasks, read of stored memory of every interpreter that describes them: what each stands at, which awaits
//! which; and memory that lies is survived.

use std::cell::Cell;

use anyhow::{Context, Result, ensure};
use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;
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

/// Memory that can be read only so many times.
struct Limited<'a, M> {
    memory: &'a M,
    rest: Cell<usize>,
}

impl<M: ReadMemory> ReadMemory for Limited<'_, M> {
    fn read(&self, at: RemoteAddr, bytes: &mut [u8]) -> Result<(), ReadError> {
        let rest = self.rest.get().checked_sub(1).ok_or(ReadError::Unmapped(at))?;
        self.rest.set(rest);
        self.memory.read(at, bytes)
    }
}

/// Of each task as much is read as there is memory for, and what is missing is marked.
fn a_chain_that_is_not_all_there_is_truncated(id: &StoredId) -> Result<()> {
    const MOST_READS: usize = 10_000;
    let stored = StoredAccount::<AsyncioTree>::open(id)?;
    let memory = stored.memory.with_whole_pages();
    let (asyncio, offsets) = (stored.account.asyncio()?, stored.account.offsets(&memory)?);
    for task in stored.account.tasks(&memory)? {
        let whole = read_what_there_is(&memory, &offsets, &asyncio, &[task]).remove(0).context("the task")?;
        let mut truncated = 0;
        for reads in 0..MOST_READS {
            let limited = Limited { memory: &memory, rest: Cell::new(reads) };
            let Some(part) = read_what_there_is(&limited, &offsets, &asyncio, &[task]).remove(0) else {
                continue;
            };
            ensure!(whole.frames.ends_with(&part.frames), "{part:?} of {whole:?}");
            ensure!(part.is_truncated || part.frames == whole.frames, "{part:?} of {whole:?}");
            truncated += usize::from(part.is_truncated);
            if !part.is_truncated {
                break;
            }
        }
        ensure!(truncated > 0, "{whole:?} is never truncated");
    }
    Ok(())
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
    tests.extend(Test::of_each(
        "a_chain_that_is_not_all_there_is_truncated",
        each.clone(),
        a_chain_that_is_not_all_there_is_truncated,
    ));
    tests.extend(Test::of_each("damaged_memory_is_survived", each, damaged_memory_is_survived));
    tests
}
