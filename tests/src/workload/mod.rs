//! Workloads whose expectation is a table: `expect.json` says how the program is run and recorded, on which
//! versions, and what must be true of the profile. This is the one runner of all of them; what is special to
//! one fixture is in its folder, not here. (The labyrinth and other fixtures that need a judge of their own
//! have their own tests.)

mod check;
mod selector;
pub mod topics;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::suite::{Case, PAUSE_AND_BPF, Test};
use crate::{
    Competitors, Environment, Fixture, Interpreter, Profiler, Scratch, WeightedSample, interpreters,
    read_speedscope, samples_per_second,
};
use check::Check;
use selector::Lines;

/// The driver that many of the programs share.
const DRIVER: &str = "turns/turns.py";

/// So many recordings are made of a program at most for the samples that its statements need.
const MOST_RECORDINGS: usize = 6;

/// The table of a fixture.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// What the numbers mean and where they come from, for the reader.
    #[allow(dead_code)]
    about: Value,
    /// What a table cannot say: read by tests of their own.
    #[serde(default)]
    #[allow(dead_code)]
    judged_elsewhere: Value,
    runs: BTreeMap<String, Recorded>,
}

/// A recording of the program and what must be true of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    program: String,
    #[serde(default)]
    arguments: Vec<String>,
    /// Samples per second.
    rate: f64,
    /// More options of `record`.
    #[serde(default)]
    options: String,
    /// The environment whose packages it needs: it runs there and nowhere else.
    environment: Option<Environment>,
    /// Minor versions it runs on; every one where there are none.
    #[serde(default)]
    minors: Vec<u32>,
    /// The first minor version that has what the program needs.
    #[serde(default)]
    from: u32,
    /// Only builds with a GIL can show this.
    #[serde(default)]
    needs_gil: bool,
    /// Attach to the program, or to a child it announces, once it is ready; without it the program is
    /// launched by the profiler.
    attach: Option<Attach>,
    /// It begins when its stdin ends, which it does once it is sampled.
    #[serde(default)]
    told: bool,
    /// So many busy loops run beside it, all on one CPU: it gets one only now and then.
    #[serde(default)]
    competitors: usize,
    /// Only samples with this function of the program's own file, or of the driver's, count; all where there
    /// is none.
    inside: Option<String>,
    /// Fewer samples than this prove nothing.
    least_samples: f64,
    checks: Vec<Check>,
    /// What it must show besides, once the profiler can see it.
    #[serde(default)]
    #[allow(dead_code)]
    due: Vec<Due>,
}

/// A statement that waits for a part of the profiler which is not there yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Due {
    /// What must be true.
    #[allow(dead_code)]
    says: String,
    /// The part that it waits for.
    #[allow(dead_code)]
    due: DueWith,
}

/// The parts of the profiler that statements wait for.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DueWith {
    /// Native stacks below the Python ones.
    Native,
    /// The sampler in the kernel, which sees what a thread waits for and for how long.
    InKernelSampler,
    /// The memory profiler.
    Memory,
    /// Views by the expression that ran, not only by its line.
    Expressions,
    /// The comparison of two recordings.
    Comparison,
}

/// Whom to attach to.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Attach {
    /// The program itself.
    Program,
    /// The child with this place in its `ready` line.
    Child(usize),
}

/// What a check looks at.
#[derive(Clone)]
struct Evidence {
    /// The samples inside the work, `<gc>` marks taken off.
    samples: Vec<WeightedSample>,
    /// The last line that the program wrote.
    account: Value,
    /// Where the texts of lines are.
    lines: Lines,
    /// How many samples stand behind a second of weight.
    samples_per_second: f64,
    /// How many were asked for.
    asked_per_second: f64,
    /// The table, run and case, for the record of statements.
    about: String,
}

impl Recorded {
    /// All cases of it: what a soak runs.
    fn all_cases(&self) -> Vec<Case> {
        let with_both =
            |interpreter| PAUSE_AND_BPF.iter().map(move |sampler| Case::of(interpreter).by(*sampler));
        self.interpreters().into_iter().flat_map(with_both).collect()
    }

    /// What a run of the tests makes do with: the oldest and the newest of its interpreters, one by each sampler. Which has
    /// which alternates with the `number` of the run.
    fn few_cases(&self, number: usize) -> Vec<Case> {
        let interpreters = self.interpreters();
        let ends = [interpreters.first(), interpreters.last().filter(|_| interpreters.len() > 1)];
        let samplers = PAUSE_AND_BPF.iter().cycle().skip(number);
        ends.into_iter().flatten().zip(samplers).map(|(one, sampler)| Case::of(one).by(*sampler)).collect()
    }

    /// The interpreters that it can run on, oldest first.
    fn interpreters(&self) -> Vec<&'static Interpreter> {
        if let Some(environment) = self.environment {
            return environment.interpreter().into_iter().collect();
        }
        let all = interpreters().iter().filter(|found| found.minor >= self.from);
        let all = all.filter(|found| !(self.needs_gil && found.free_threaded));
        if self.minors.is_empty() {
            return all.collect();
        }
        let mut chosen: Vec<&Interpreter> = Vec::new();
        // One of a version is enough: the first of them, by name.
        for found in all.filter(|found| self.minors.contains(&found.minor) && !found.free_threaded) {
            if chosen.iter().all(|other| other.minor != found.minor) {
                chosen.push(found);
            }
        }
        chosen
    }

    /// Records the program and returns the file's text and the program's account.
    fn record(&self, case: &Case, program: &str) -> Result<(String, Value)> {
        let scratch = Scratch::new()?;
        let file = scratch.file("out.json");
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let record = Profiler::new("record")
            .words(&format!("-r {} {} {} -f speedscope -o", self.rate, self.options, case.sampler_words()))
            .arg(&file);
        let competitors = Competitors::start(self.competitors)?;
        let words = competitors.beside(case.interpreter.fixture_words(program, &arguments));
        let account = match self.attach {
            None => {
                let run = record.command(&words).succeed()?;
                serde_json::from_str(run.stdout.lines().last().context("the program says nothing")?)?
            }
            Some(attach) => {
                let mut fixture = Fixture::start_words(&words)?;
                let pid = match attach {
                    Attach::Program => fixture.pid(),
                    Attach::Child(index) => *fixture.children().get(index).context("no such child")?,
                };
                let mut running = record.words(&format!("--pid {pid}")).spawn()?;
                if self.told {
                    running.wait_until_sampling()?;
                    fixture.close_stdin();
                }
                let run = running.wait()?;
                ensure!(run.code() == Some(0), "{run:?}");
                fixture.finish()?
            }
        };
        Ok((std::fs::read_to_string(&file)?, account))
    }

    fn is_inside(&self, sample: &WeightedSample) -> bool {
        let Some(inside) = &self.inside else { return true };
        let is_ours = |file: &String| file.ends_with(&self.program) || file.ends_with(DRIVER);
        sample
            .frames
            .iter()
            .any(|frame| frame.plain_name() == inside && frame.file.as_ref().is_some_and(is_ours))
    }

    /// A recording and what it shows.
    fn evidence(&self, topic: &str, case: &Case) -> Result<Evidence> {
        let program = format!("{topic}/{}", self.program);
        let (text, account) = self.record(case, &program)?;
        let samples_per_second = samples_per_second(&text, self.rate)?;
        let mut samples = read_speedscope(&text)?;
        for sample in &mut samples {
            sample.frames.retain(|frame| frame.function != "<gc>");
        }
        samples.retain(|sample| self.is_inside(sample));
        let number = samples_per_second * samples.iter().map(|sample| sample.weight).sum::<f64>();
        ensure!(number >= self.least_samples, "only {number:.0} samples");
        Ok(Evidence {
            samples,
            account,
            lines: Lines::of(program),
            samples_per_second,
            asked_per_second: self.rate,
            about: String::new(),
        })
    }

    /// The same with the samples of more recordings, until every share can be judged. Whether more are needed depends on how
    /// much time was sampled, not on what was found in it.
    fn pooled(&self, first: &Evidence, checks: &[&Check], topic: &str, case: &Case) -> Result<Evidence> {
        let mut pooled = first.clone();
        for _ in 1..MOST_RECORDINGS {
            let undecided =
                checks.iter().map(|check| check.is_undecided(&pooled)).collect::<Result<Vec<_>>>()?;
            if !undecided.contains(&true) {
                break;
            }
            let next = self.evidence(topic, case)?;
            pooled.samples.extend(next.samples);
            pooled.samples_per_second = pooled.samples_per_second.min(next.samples_per_second);
        }
        Ok(pooled)
    }

    fn check(&self, topic: &str, name: &str, case: &Case) -> Result<()> {
        let checks: Vec<&Check> =
            self.checks.iter().filter(|check| check.holds_for(case.interpreter.minor)).collect();
        let mut first = self.evidence(topic, case)?;
        let mut pooled = self.pooled(&first, &checks, topic, case)?;
        let mut failures = Vec::new();
        for check in checks {
            let evidence = if check.judges_a_share() { &mut pooled } else { &mut first };
            let (interpreter, sampler) = (&case.interpreter.id, case.sampler());
            evidence.about = format!("{topic}, {name}: {} on {interpreter} by {sampler}", check.says);
            if let Err(error) = check.check(evidence) {
                failures.push(format!("    {}: {error:#}", check.says));
            }
        }
        ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
        Ok(())
    }
}

/// How much of a table is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Each run on its oldest and newest interpreter, one by each sampler.
    Few,
    /// Each run on all its interpreters by both samplers.
    All,
}

/// The tests of a fixture's table, one for each of its runs: `any_search::four_ways[3.6,pause]`.
///
/// # Panics
/// When the table cannot be read, or an interpreter is missing and nothing may be skipped.
pub fn table_tests(topic: &'static str, extent: Extent) -> Vec<Test> {
    let table = crate::expectation(topic).and_then(|value| Ok(serde_json::from_value::<Table>(value)?));
    let table = table.unwrap_or_else(|error| panic!("{topic}/expect.json: {error:#}"));
    let test = |(number, (name, run)): (usize, (String, Recorded))| {
        let cases = if extent == Extent::All { run.all_cases() } else { run.few_cases(number) };
        let full_name = format!("{topic}::{name}");
        Test::new(full_name, move |case: &Case| run.check(topic, &name, case)).only(cases)
    };
    table.runs.into_iter().enumerate().map(test).collect()
}
