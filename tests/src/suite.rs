//! Test cases: a test, the interpreters it runs on and the samplers it runs with.
//!
//! Each combination is a case of its own, such as `labyrinth::callbacks[3.9,pause]`, so that a failure names it, a
//! filter selects it, and cases run beside each other. The test programs under `tests/` (one per tier) collect the
//! cases of their modules and hand them to [`run`], which behaves like the harness of `cargo test`; cargo-nextest
//! runs them, too.
//!
//! A test names its samplers: `auto` means `bpf` for root, so a test that leaves the choice to the profiler says
//! nothing about `pause`, which most users get.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{Interpreter, can_load_programs, interpreters, one_interpreter};

/// The variable that names the tier that is run. Test programs of other tiers do nothing then; without it, all but the soak
/// tests run.
pub const TIER_VARIABLE: &str = "PROFILER_TESTS_TIER";

/// The tiers of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Without a live target; as many at a time as there are CPUs.
    Deterministic,
    /// On live processes, judging what is seen; two at a time.
    Live,
    /// On live processes, judging amounts; alone on the machine.
    Statistical,
    /// What takes long or fails by chance; not part of a run of the tests, see `cargo xtask soak`.
    Soak,
}

impl Tier {
    /// Those of a run of the tests.
    pub const ALL: [Tier; 3] = [Tier::Deterministic, Tier::Live, Tier::Statistical];

    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Deterministic => "1",
            Tier::Live => "2",
            Tier::Statistical => "3",
            Tier::Soak => "soak",
        }
    }

    /// The test program of this crate that holds its cases.
    pub fn program(self) -> &'static str {
        match self {
            Tier::Deterministic => "deterministic",
            Tier::Live => "live",
            Tier::Statistical => "statistical",
            Tier::Soak => "soak",
        }
    }

    /// How many cases run at a time; as many as there are CPUs where it says nothing.
    pub fn threads(self) -> Option<usize> {
        match self {
            Tier::Deterministic => None,
            Tier::Live => Some(2),
            Tier::Statistical | Tier::Soak => Some(1),
        }
    }

    fn is_wanted(self) -> bool {
        let wanted = std::env::var(TIER_VARIABLE);
        wanted.map_or(self != Tier::Soak, |wanted| wanted == self.name())
    }
}

/// A way of sampling, by the name that `--sampler` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// One short stop of one thread per sample.
    Pause,
    /// Inside the kernel.
    Bpf,
    /// Without any stop.
    Peek,
}

/// The samplers that show everything.
pub const PAUSE_AND_BPF: &[Sampler] = &[Sampler::Pause, Sampler::Bpf];

impl Sampler {
    /// The value of `--sampler`.
    pub fn name(self) -> &'static str {
        match self {
            Sampler::Pause => "pause",
            Sampler::Bpf => "bpf",
            Sampler::Peek => "peek",
        }
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The interpreters that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// One: the test depends on no version.
    One,
    /// The whole matrix: what the test checks differs by version.
    Every,
    /// One of each of the three layouts that CPython's frames have had: 3.8, 3.11 and the newest.
    Layouts,
    /// The first interpreter of each of these minor versions.
    Minors(&'static [u32]),
}

/// One interpreter of each layout of frames; the newest is found by its number.
const LAYOUT_MINORS: &[u32] = &[8, 11];

impl On {
    /// Its interpreters, oldest first.
    pub fn interpreters(self) -> Vec<&'static Interpreter> {
        let all = interpreters();
        match self {
            On::One => vec![one_interpreter()],
            On::Every => all.iter().collect(),
            On::Minors(minors) => first_of(minors),
            On::Layouts => {
                let mut chosen = first_of(LAYOUT_MINORS);
                chosen.extend(all.last());
                chosen
            }
        }
    }
}

fn first_of(minors: &[u32]) -> Vec<&'static Interpreter> {
    let first = |minor: &u32| {
        interpreters().iter().find(|one| one.minor == *minor && !one.free_threaded && !one.is_of_system())
    };
    minors.iter().filter_map(first).collect()
}

/// What a test runs with.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The interpreter of the target.
    pub interpreter: &'static Interpreter,
    sampler: Option<Sampler>,
}

impl Case {
    /// A case with an interpreter and no sampler.
    pub fn of(interpreter: &'static Interpreter) -> Self {
        Case { interpreter, sampler: None }
    }

    /// The same with a sampler.
    pub fn by(self, sampler: Sampler) -> Self {
        Case { sampler: Some(sampler), ..self }
    }

    /// The sampler that it names.
    ///
    /// # Panics
    /// When its test names none.
    pub fn sampler(&self) -> Sampler {
        self.sampler.expect("a test that asks for its sampler has one")
    }

    /// `--sampler NAME`, for a command line.
    pub fn sampler_words(&self) -> String {
        format!("--sampler {}", self.sampler())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interpreter.id)?;
        self.sampler.map_or(Ok(()), |sampler| write!(f, " by {sampler}"))
    }
}

/// A case before it runs. Interpreters are looked for only where a test needs one: that takes longer than most tests
/// of stored data.
#[derive(Clone, Copy, Debug)]
pub struct PlannedCase {
    /// None: the one for tests whose outcome does not depend on its version.
    interpreter: Option<&'static Interpreter>,
    sampler: Option<Sampler>,
}

impl PlannedCase {
    fn of(case: Case) -> Self {
        PlannedCase { interpreter: Some(case.interpreter), sampler: case.sampler }
    }

    fn case(&self) -> Case {
        Case { interpreter: self.interpreter.unwrap_or_else(one_interpreter), sampler: self.sampler }
    }
}

/// A test, which may take its [`Case`] and may return an error: `M` tells the four kinds apart.
pub trait RunCase<M>: Send + Sync + 'static {
    /// Runs the test once.
    ///
    /// # Errors
    /// When it fails (it may panic as well).
    fn run_case(&self, planned: &PlannedCase) -> Result<()>;
}

/// Marks a test that takes its case.
#[derive(Debug)]
pub struct WithCase;
/// Marks a test that takes nothing and returns a result.
#[derive(Debug)]
pub struct WithResult;
/// Marks a test that takes nothing and panics when it fails.
#[derive(Debug)]
pub struct WithPanic;

impl<F: Fn(&Case) -> Result<()> + Send + Sync + 'static> RunCase<WithCase> for F {
    fn run_case(&self, planned: &PlannedCase) -> Result<()> {
        self(&planned.case())
    }
}

impl<F: Fn() -> Result<()> + Send + Sync + 'static> RunCase<WithResult> for F {
    fn run_case(&self, _: &PlannedCase) -> Result<()> {
        self()
    }
}

impl<F: Fn() + Send + Sync + 'static> RunCase<WithPanic> for F {
    fn run_case(&self, _: &PlannedCase) -> Result<()> {
        self();
        Ok(())
    }
}

/// What a test does with a case.
type BoxedTest = Box<dyn Fn(&PlannedCase) -> Result<()> + Send + Sync>;

/// A test with the interpreters and samplers of its cases.
pub struct Test {
    name: String,
    on: On,
    /// In place of all interpreters with all samplers.
    chosen: Option<Vec<Case>>,
    samplers: &'static [Sampler],
    needs_gil: bool,
    needs_programs: bool,
    run: BoxedTest,
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Test").field("name", &self.name).field("on", &self.on).finish_non_exhaustive()
    }
}

impl Test {
    /// A test of one case, without an interpreter or sampler in its name.
    pub fn new<M>(name: impl Into<String>, run: impl RunCase<M>) -> Self {
        Test {
            name: name.into(),
            on: On::One,
            chosen: None,
            samplers: &[],
            needs_gil: false,
            needs_programs: false,
            run: Box::new(move |planned| run.run_case(planned)),
        }
    }

    /// A test of each of these stored things: the cases have their labels in their names, `name[3.9]`, and need no
    /// interpreter.
    pub fn of_each<T: Send + Sync + 'static>(
        name: &str,
        stored: impl IntoIterator<Item = (String, T)>,
        run: fn(&T) -> Result<()>,
    ) -> Vec<Test> {
        let test = |(label, one): (String, T)| Test::new(format!("{name}[{label}]"), move || run(&one));
        stored.into_iter().map(test).collect()
    }

    /// Runs on these interpreters, each a case.
    pub fn on(self, on: On) -> Self {
        Test { on, ..self }
    }

    /// Runs with each of these samplers.
    pub fn by(self, samplers: &'static [Sampler]) -> Self {
        Test { samplers, ..self }
    }

    /// Runs these cases and no others.
    pub fn only(self, cases: Vec<Case>) -> Self {
        Test { chosen: Some(cases), ..self }
    }

    /// Says nothing about builds without a GIL, which it leaves out.
    pub fn needs_gil(self) -> Self {
        Test { needs_gil: true, ..self }
    }

    /// Runs where programs can be loaded into the kernel, whatever sampler it names.
    pub fn needs_programs(self) -> Self {
        Test { needs_programs: true, ..self }
    }

    /// Its cases with their names: `name[3.9,pause]`.
    fn cases(&self) -> Vec<(String, PlannedCase)> {
        let chosen = |cases: &Vec<Case>| cases.iter().copied().map(PlannedCase::of).collect();
        let planned: Vec<PlannedCase> = self.chosen.as_ref().map_or_else(|| self.combinations(), chosen);
        let names_version = self.chosen.is_some() || self.on != On::One;
        let named = planned.into_iter().map(|case| {
            let version = case.interpreter.filter(|_| names_version).map(Interpreter::label);
            let parts = version.into_iter().chain(case.sampler.map(|sampler| sampler.to_string()));
            let parts: Vec<String> = parts.collect();
            let suffix = if parts.is_empty() { String::new() } else { format!("[{}]", parts.join(",")) };
            (format!("{}{suffix}", self.name), case)
        });
        named.collect()
    }

    /// Each interpreter with each sampler.
    fn combinations(&self) -> Vec<PlannedCase> {
        let interpreters: Vec<Option<&Interpreter>> = match self.on {
            On::One if !self.needs_gil => vec![None],
            on => on.interpreters().into_iter().map(Some).collect(),
        };
        let lacks_gil = |one: &Option<&Interpreter>| one.is_some_and(|one| one.free_threaded);
        let interpreters = interpreters.into_iter().filter(|one| !(self.needs_gil && lacks_gil(one)));
        let samplers: Vec<Option<Sampler>> = match self.samplers {
            [] => vec![None],
            all => all.iter().copied().map(Some).collect(),
        };
        let with_each = |interpreter| {
            let of_one = samplers.iter().map(move |&sampler| PlannedCase { interpreter, sampler });
            of_one.collect::<Vec<PlannedCase>>()
        };
        interpreters.flat_map(with_each).collect()
    }

    /// Whether the machine has what the case needs; what is missing is reported, and fails where nothing may be skipped.
    fn is_possible(needs_programs: bool, case: &PlannedCase) -> bool {
        !(needs_programs || case.sampler == Some(Sampler::Bpf)) || can_load_programs()
    }
}

/// A [`Test`] named after its function.
#[macro_export]
macro_rules! test {
    ($function:ident) => {
        $crate::suite::Test::new(stringify!($function), $function)
    };
}

/// The tests of a module.
#[derive(Debug)]
pub struct Suite {
    name: &'static str,
    tests: Vec<Test>,
}

impl Suite {
    /// Tests under a name.
    pub fn new(name: &'static str, tests: Vec<Test>) -> Self {
        Suite { name, tests }
    }
}

/// A [`Suite`] of each of these modules, which have a function `tests`.
#[macro_export]
macro_rules! suites {
    ($($module:ident),* $(,)?) => {
        vec![$($crate::suite::Suite::new(stringify!($module), $module::tests())),*]
    };
}

/// Runs the cases of a tier that the command line asks for, as the harness of `cargo test` does.
///
/// # Panics
/// When two cases have the same name.
pub fn run(tier: Tier, suites: Vec<Suite>) -> ExitCode {
    let arguments = Arguments::from_args();
    let suites = if tier.is_wanted() { suites } else { Vec::new() };
    let trials: Vec<Trial> = suites.into_iter().flat_map(trials).collect();
    let mut seen = HashSet::new();
    let twice = trials.iter().find(|trial| !seen.insert(trial.name().to_owned()));
    assert!(twice.is_none(), "two cases are named {}", twice.map_or("", |trial| trial.name()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials(suite: Suite) -> Vec<Trial> {
    let mut trials = Vec::new();
    for test in suite.tests {
        let cases: BTreeMap<String, PlannedCase> = test.cases().into_iter().collect();
        let (run, needs_programs) = (std::sync::Arc::new(test.run), test.needs_programs);
        for (name, case) in cases {
            let run = run.clone();
            trials.push(Trial::test(format!("{}::{name}", suite.name), move || {
                if !Test::is_possible(needs_programs, &case) {
                    return Ok(());
                }
                run(&case).map_err(|error| Failed::from(format!("{error:#}")))
            }));
        }
    }
    trials
}
