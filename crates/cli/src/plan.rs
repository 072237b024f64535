//! What is meant by what was typed: every value checked, every default decided, nothing done yet.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap_complete::Shell;
use profiler_model::Pid;
use profiler_output::{FORMATS, Format, Lines, ViewOptions, Weight, format_named, format_of_file};
use profiler_sampler::{ReprLimits, SamplerKind, SamplerOptions};
use profiler_tui::Settings;

use crate::flags::{Command, DumpFlags, Flags, Mode, RecordFlags, SamplerName, TopFlags};

/// The most samples a second. A sample takes some ten microseconds of the target's time at best: at this
/// rate there is nothing left to measure.
const MAX_RATE_HZ: f64 = 100_000.0;
/// Less than this takes no samples worth the name.
const MIN_CPU_PERCENT: f64 = 0.1;
/// The fewest: one in a quarter of an hour. Below that, a mistake is likelier than an intention.
const MIN_RATE_HZ: f64 = 0.001;
/// The longest recording that can be asked for: a hundred years, which keeps sums of instants in range.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest time between two pictures: nobody reads more.
const MIN_DELAY: Duration = Duration::from_millis(100);
/// The longest one.
const MAX_DELAY: Duration = Duration::from_secs(3_600);
/// The longest of the waits that are told in sum: an hour of them at once tells nobody anything.
const MAX_MIN_WAIT: Duration = Duration::from_secs(3_600);
/// The largest process id that Linux gives (`PID_MAX_LIMIT`).
const MAX_PID: u32 = 1 << 22;

/// What is to be done.
pub enum Plan {
    /// Sample and write.
    Record(RecordPlan),
    /// Sample and show.
    Top(TopPlan),
    /// Look once and print.
    Dump(DumpPlan),
    /// Say what can be profiled here.
    Doctor(DoctorPlan),
    /// Look into a core file and print.
    Core(CorePlan),
    /// Write the completions of a shell.
    Completions(Shell),
    /// Write the manual page.
    Man,
}

/// A recording.
pub struct RecordPlan {
    /// Of what.
    pub subject: Subject,
    /// Where the result goes.
    pub output: Output,
    /// What is written there.
    pub format: &'static dyn Format,
    /// Where the ledger is written as JSON.
    pub ledger_json: Option<Output>,
    /// How long to sample; `None` until something else ends it.
    pub duration: Option<Duration>,
    /// Whether a command runs on when the duration is over.
    pub keep_running: bool,
    /// Whether its descendants are sampled as well.
    pub subprocesses: bool,
    /// The sampler that was asked for; `None`: the best one.
    pub choice: Option<SamplerKind>,
    /// How to sample, as far as that does not depend on what is possible here.
    pub sampler: SamplerOptions,
    /// Which time counts.
    pub mode: Mode,
    /// Waits shorter than this are told in sum.
    pub min_wait: Duration,
    /// Whether what threads do in the kernel is shown as well.
    pub kernel_frames: bool,
    /// How to show it.
    pub view: ViewOptions,
}

/// How many characters of a value are shown for each `-l`, as in py-spy.
const CHARACTERS_OF_VALUES: usize = 128;

/// A live view.
pub struct TopPlan {
    /// Of what.
    pub subject: Subject,
    /// Whether the descendants are shown as well.
    pub subprocesses: bool,
    /// The sampler that was asked for; `None`: the best one.
    pub choice: Option<SamplerKind>,
    /// How to sample, as far as that does not depend on what is possible here.
    pub sampler: SamplerOptions,
    /// Whether what threads do in the kernel is shown as well.
    pub kernel_frames: bool,
    /// How the view begins.
    pub settings: Settings,
    /// How files that it writes are to look.
    pub view: ViewOptions,
}

/// A look at a process.
#[derive(Debug)]
pub struct DumpPlan {
    /// The process.
    pub pid: Pid,
    /// Whether its descendants are looked into as well.
    pub subprocesses: bool,
    /// How to look.
    pub sampler: SamplerKind,
    /// Whether the values of variables are shown, and how much of each.
    pub variables: Option<ReprLimits>,
    /// Whether lines of source are shown; `None`: where the output is read at a terminal.
    pub source: Option<bool>,
    /// Whether asyncio's tasks are shown; `None`: in JSON and where the output is read at a terminal.
    pub tasks: Option<bool>,
    /// Whether JSON is printed.
    pub json: bool,
    /// How to show it.
    pub view: ViewOptions,
}

/// An examination of this host, and of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorPlan {
    /// The process, if one was asked about.
    pub pid: Option<Pid>,
    /// Whether JSON is printed.
    pub json: bool,
}

/// A look at a core file.
#[derive(Debug)]
pub struct CorePlan {
    /// The core file.
    pub file: PathBuf,
    /// Where the files lie that were mapped, if not where they were.
    pub sysroot: Option<PathBuf>,
    /// Whether the values of variables are shown, and how much of each.
    pub variables: Option<ReprLimits>,
    /// Whether lines of source are shown; `None`: where the output is read at a terminal.
    pub source: Option<bool>,
    /// Whether asyncio's tasks are shown; `None`: in JSON and where the output is read at a terminal.
    pub tasks: Option<bool>,
    /// Whether JSON is printed.
    pub json: bool,
    /// How to show it.
    pub view: ViewOptions,
}

/// What is profiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A process that runs already.
    Process(Pid),
    /// A command to be started.
    Command {
        /// Its name or path.
        program: OsString,
        /// What it is given.
        arguments: Vec<OsString>,
    },
}

impl Subject {
    /// The process, if it runs already.
    pub fn process(&self) -> Option<Pid> {
        match self {
            Subject::Process(pid) => Some(*pid),
            Subject::Command { .. } => None,
        }
    }
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Our stdout.
    Stdout,
    /// A file that the user has named.
    File(PathBuf),
    /// A file that the user has not named: it replaces nothing.
    New(PathBuf),
}

/// Why what was typed means nothing that could be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Something of py-spy's that this profiler does not have yet.
    #[error("{0} is not there yet: this version cannot {1}")]
    NotYet(&'static str, &'static str),
    /// Neither a process nor a command.
    #[error("nothing to profile: give --pid or, after --, a command to run")]
    NoSubject,
    /// Both of them.
    #[error("give either --pid or a command to run, not both")]
    TwoSubjects,
    /// `dump` without a process.
    #[error("nothing to look into: give --pid or --core")]
    NoPid,
    /// No process has such a number.
    #[error("{0:?} is no process id: a number from 1 to {max}, decimal or 0xhex, is", max = MAX_PID)]
    BadPid(String),
    /// The profiler cannot stop itself and go on.
    #[error("process {0} is this profiler itself")]
    OwnPid(Pid),
    /// The samplers outside of the kernel see nothing of it.
    #[error(
        "{0} does not see what threads do in the kernel, which --kernel asks for: give --sampler bpf, or leave the choice \
         to the profiler"
    )]
    KernelFromOutside(&'static str),
    /// The format shows each thread in time.
    #[error(
        "--merge-processes does not go with -f {0}, which shows what each thread did when; raw, flamegraph and speedscope can"
    )]
    CannotMerge(&'static str),
    /// Not a rate.
    #[error("{0:?} is no rate: a number of samples per second from {min} to {max} is", min = MIN_RATE_HZ, max = MAX_RATE_HZ)]
    BadRate(String),
    /// Not a share of a core.
    #[error(
        "invalid CPU limit {0:?} (--max-cpu): expected a number of percent from {MIN_CPU_PERCENT} to 100"
    )]
    BadMaxCpu(String),
    /// Not a delay between pictures.
    #[error("{0:?} is no delay: a number of seconds from {min} to {max} is", min = MIN_DELAY.as_secs_f64(), max = MAX_DELAY.as_secs())]
    BadDelay(String),
    /// Not the length of a wait.
    #[error("{0:?} is no shortest wait: a number of seconds from 0 to {max} is", max = MAX_MIN_WAIT.as_secs())]
    BadMinWait(String),
    /// Not a duration.
    #[error("{0:?} is no duration: a number of seconds above 0 or \"unlimited\" is")]
    BadDuration(String),
}

/// Decides what is meant. `now` names files that the user did not name.
///
/// # Errors
/// When it cannot be done as typed.
pub fn plan(flags: Flags, now: SystemTime) -> Result<Plan, UsageError> {
    match flags.command {
        Command::Record(flags) => record_plan(flags, now).map(Plan::Record),
        Command::Dump(mut flags) => match flags.core.take() {
            Some(file) => core_plan(file, flags).map(Plan::Core),
            None => dump_plan(flags).map(Plan::Dump),
        },
        Command::Doctor(flags) => {
            let pid = flags.pid.as_deref().map(parse_pid).transpose()?;
            Ok(Plan::Doctor(DoctorPlan { pid, json: flags.json }))
        }
        Command::Completions(flags) => Ok(Plan::Completions(match flags.shell.as_str() {
            "zsh" => Shell::Zsh,
            "fish" => Shell::Fish,
            _ => Shell::Bash,
        })),
        Command::Man => Ok(Plan::Man),
        Command::Top(flags) => top_plan(flags, now).map(Plan::Top),
    }
}

fn record_plan(flags: RecordFlags, now: SystemTime) -> Result<RecordPlan, UsageError> {
    refuse_what_comes_later(&[(flags.native, "-n, --native", "show native frames")])?;
    let rate_hz = parse_rate(&flags.rate)?;
    let duration = parse_duration(&flags.duration)?;
    let subject = parse_subject(flags.pid.as_deref(), flags.command)?;
    let format = choose_format(flags.format.as_deref(), flags.output.as_deref());
    if flags.merge_processes && !format.can_merge_processes() {
        return Err(UsageError::CannotMerge(format.name()));
    }
    let output = choose_output(flags.output, &subject, format, now);
    let view = ViewOptions {
        line_numbers: choose_lines(flags.function, flags.nolineno),
        full_filenames: flags.full_filenames,
        threads: flags.threads,
        processes: flags.subprocesses,
        merge_processes: flags.merge_processes,
        weight: match flags.mode {
            Mode::Cpu => choose_weight(format, flags.idle || flags.gil),
            Mode::Wall | Mode::Gil | Mode::OffCpu => Weight::Wall,
        },
        ..ViewOptions::default()
    };
    let choice = sampler_choice(flags.sampler, flags.nonblocking);
    let kernel_frames = choose_kernel_frames(flags.kernel, flags.sampler, flags.nonblocking)?;
    let kind = choice.unwrap_or_default();
    let sampler = SamplerOptions {
        rate_hz,
        kind,
        include_idle: flags.idle || flags.mode == Mode::Wall,
        gil_only: flags.gil || flags.mode == Mode::Gil,
        max_cpu: parse_max_cpu(&flags.max_cpu)?,
    };
    let (subprocesses, mode) = (flags.subprocesses, flags.mode);
    let min_wait = parse_min_wait(&flags.min_wait)?;
    Ok(RecordPlan {
        subject,
        output,
        format,
        ledger_json: flags.ledger_json.map(Output::File),
        duration,
        keep_running: flags.keep_running,
        subprocesses,
        choice,
        sampler,
        mode,
        min_wait,
        kernel_frames,
        view,
    })
}

fn top_plan(flags: TopFlags, now: SystemTime) -> Result<TopPlan, UsageError> {
    refuse_what_comes_later(&[(flags.native, "-n, --native", "show native frames")])?;
    let rate_hz = parse_rate(&flags.rate)?;
    let interval = parse_delay(&flags.delay)?;
    let subject = parse_subject(flags.pid.as_deref(), flags.command)?;
    let settings = Settings {
        interval: interval.into(),
        include_idle: flags.idle,
        gil_only: flags.gil,
        line_numbers: !flags.nolineno,
        full_filenames: flags.full_filenames,
        file: default_name(&subject, FORMATS[0], now).display().to_string(),
    };
    let view = ViewOptions {
        line_numbers: choose_lines(flags.function, flags.nolineno),
        full_filenames: flags.full_filenames,
        processes: flags.subprocesses,
        ..ViewOptions::default()
    };
    // Every thread, always: what is shown of it is chosen while looking.
    let choice = sampler_choice(flags.sampler, flags.nonblocking);
    let kernel_frames = choose_kernel_frames(flags.kernel, flags.sampler, flags.nonblocking)?;
    let kind = choice.unwrap_or_default();
    let max_cpu = parse_max_cpu(&flags.max_cpu)?;
    let sampler = SamplerOptions { rate_hz, kind, include_idle: true, gil_only: false, max_cpu };
    let subprocesses = flags.subprocesses;
    Ok(TopPlan { subject, subprocesses, choice, sampler, kernel_frames, settings, view })
}

/// What a sample counts for. Threads that run are shown by the CPU time that they used, as the kernel counts
/// it, and by wall time where waiting counts too. In collapsed stacks a sample is one, as in py-spy's.
fn choose_weight(format: &dyn Format, waiting_counts: bool) -> Weight {
    match (format.name(), waiting_counts) {
        ("raw", _) => Weight::Samples,
        (_, true) => Weight::Wall,
        (_, false) => Weight::Cpu,
    }
}

fn dump_plan(flags: DumpFlags) -> Result<DumpPlan, UsageError> {
    refuse_what_comes_later(&[(flags.native, "-n, --native", "show native frames")])?;
    let pid = parse_pid(flags.pid.as_deref().ok_or(UsageError::NoPid)?)?;
    let view = ViewOptions { full_filenames: flags.full_filenames, ..ViewOptions::default() };
    Ok(DumpPlan {
        pid,
        subprocesses: flags.subprocesses,
        sampler: sampler_kind(flags.nonblocking),
        variables: choose_variables(flags.locals),
        source: when(flags.source.as_deref()),
        tasks: when(flags.tasks.as_deref()),
        json: flags.json,
        view,
    })
}

/// `always`, `never`, or neither.
fn when(word: Option<&str>) -> Option<bool> {
    match word {
        Some("always") => Some(true),
        Some("never") => Some(false),
        _ => None,
    }
}

fn choose_variables(locals: u8) -> Option<ReprLimits> {
    (locals > 0).then(|| ReprLimits { characters: CHARACTERS_OF_VALUES * usize::from(locals) })
}

/// Nothing can be stopped in a core file, so that `--nonblocking` changes nothing.
fn core_plan(file: PathBuf, flags: DumpFlags) -> Result<CorePlan, UsageError> {
    refuse_what_comes_later(&[(flags.native, "-n, --native", "show native frames")])?;
    let view = ViewOptions { full_filenames: flags.full_filenames, ..ViewOptions::default() };
    let variables = choose_variables(flags.locals);
    let (source, tasks) = (when(flags.source.as_deref()), when(flags.tasks.as_deref()));
    Ok(CorePlan { file, sysroot: flags.sysroot, variables, source, tasks, json: flags.json, view })
}

fn refuse_what_comes_later(options: &[(bool, &'static str, &'static str)]) -> Result<(), UsageError> {
    match options.iter().find(|(given, ..)| *given) {
        Some((_, option, purpose)) => Err(UsageError::NotYet(option, purpose)),
        None => Ok(()),
    }
}

/// The sampler that was asked for, if one was.
fn sampler_choice(name: SamplerName, nonblocking: bool) -> Option<SamplerKind> {
    match name {
        SamplerName::Auto => nonblocking.then_some(SamplerKind::Peek),
        SamplerName::Pause => Some(SamplerKind::Pause),
        SamplerName::Bpf => Some(SamplerKind::Bpf),
        SamplerName::Peek => Some(SamplerKind::Peek),
    }
}

/// What threads do in the kernel is told there alone.
fn choose_kernel_frames(asked: bool, sampler: SamplerName, nonblocking: bool) -> Result<bool, UsageError> {
    let from_outside = match sampler {
        SamplerName::Pause => Some("--sampler pause"),
        SamplerName::Peek => Some("--sampler peek"),
        SamplerName::Auto | SamplerName::Bpf => nonblocking.then_some("--nonblocking"),
    };
    match from_outside.filter(|_| asked) {
        Some(option) => Err(UsageError::KernelFromOutside(option)),
        None => Ok(asked),
    }
}

fn sampler_kind(nonblocking: bool) -> SamplerKind {
    if nonblocking { SamplerKind::Peek } else { SamplerKind::Pause }
}

/// Without line numbers there are none to choose from, so that option wins, as it does in py-spy.
fn choose_lines(function: bool, nolineno: bool) -> Lines {
    match (function, nolineno) {
        (_, true) => Lines::None,
        (true, false) => Lines::FirstLine,
        (false, false) => Lines::Line,
    }
}

fn parse_subject(pid: Option<&str>, command: Vec<OsString>) -> Result<Subject, UsageError> {
    let mut words = command.into_iter();
    match (pid, words.next()) {
        (None, None) => Err(UsageError::NoSubject),
        (Some(_), Some(_)) => Err(UsageError::TwoSubjects),
        (Some(pid), None) => Ok(Subject::Process(parse_pid(pid)?)),
        (None, Some(program)) => Ok(Subject::Command { program, arguments: words.collect() }),
    }
}

fn parse_pid(text: &str) -> Result<Pid, UsageError> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(own) if own == std::process::id() => Err(UsageError::OwnPid(Pid::new(own))),
        Ok(number @ 1..=MAX_PID) => Ok(Pid::new(number)),
        _ => Err(UsageError::BadPid(text.to_owned())),
    }
}

fn parse_rate(text: &str) -> Result<f64, UsageError> {
    match text.parse::<f64>() {
        Ok(rate) if (MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate) => Ok(rate),
        _ => Err(UsageError::BadRate(text.to_owned())),
    }
}

/// A share of one core; 1 is a whole one.
fn parse_max_cpu(text: &str) -> Result<f64, UsageError> {
    match text.parse::<f64>() {
        Ok(percent) if (MIN_CPU_PERCENT..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(UsageError::BadMaxCpu(text.to_owned())),
    }
}

fn parse_duration(text: &str) -> Result<Option<Duration>, UsageError> {
    if text == "unlimited" {
        return Ok(None);
    }
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match seconds {
        Some(duration) if !duration.is_zero() && duration <= MAX_DURATION => Ok(Some(duration)),
        _ => Err(UsageError::BadDuration(text.to_owned())),
    }
}

fn parse_delay(text: &str) -> Result<Duration, UsageError> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|delay| (MIN_DELAY..=MAX_DELAY).contains(delay))
        .ok_or_else(|| UsageError::BadDelay(text.to_owned()))
}

fn parse_min_wait(text: &str) -> Result<Duration, UsageError> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|wait| *wait <= MAX_MIN_WAIT).ok_or_else(|| UsageError::BadMinWait(text.to_owned()))
}

/// What `-f` says, else what the file's ending says, else a flame graph; on stdout, text.
pub fn choose_format(name: Option<&str>, output: Option<&Path>) -> &'static dyn Format {
    let by_name = || format_named(name?);
    let by_place = || match output? {
        stdout if stdout == Path::new("-") => format_named("raw"),
        file => format_of_file(file.file_name()?.to_str()?),
    };
    by_name().or_else(by_place).unwrap_or(FORMATS[0])
}

fn choose_output(
    typed: Option<PathBuf>,
    subject: &Subject,
    format: &'static dyn Format,
    now: SystemTime,
) -> Output {
    match typed {
        Some(stdout) if stdout == Path::new("-") => Output::Stdout,
        Some(file) => Output::File(file),
        None => Output::New(default_name(subject, format, now)),
    }
}

/// `python3-2026-11-21T06:02:01Z.svg` in the current folder.
fn default_name(subject: &Subject, format: &'static dyn Format, now: SystemTime) -> PathBuf {
    let mut name = match subject {
        Subject::Process(pid) => pid.to_string().into(),
        Subject::Command { program, .. } => {
            Path::new(program).file_name().map_or_else(|| "command".into(), OsString::from)
        }
    };
    name.push(format!("-{}.{}", rfc_3339(now), format.endings()[0]));
    PathBuf::from(name)
}

/// The second of an instant in universal time, as RFC 3339 writes it.
fn rfc_3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = date_of(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date so many days after 1970-01-01.
fn date_of(mut days: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// 2026-11-21T06:02:01Z.
    const NOW: u64 = 1_795_240_921;

    fn planned(arguments: &str) -> Result<Plan, UsageError> {
        let words = std::iter::once("profiler").chain(arguments.split_whitespace());
        plan(Flags::try_parse_from(words).unwrap(), UNIX_EPOCH + Duration::from_secs(NOW))
    }

    fn record(arguments: &str) -> RecordPlan {
        match planned(&format!("record {arguments}")) {
            Ok(Plan::Record(plan)) => plan,
            Ok(_) => panic!("{arguments}: no recording"),
            Err(error) => panic!("{arguments}: {error}"),
        }
    }

    fn refused(arguments: &str) -> UsageError {
        planned(arguments).map(|_| arguments).unwrap_err()
    }

    #[test]
    fn the_sampler_can_be_chosen() {
        let choices = [
            ("auto", None),
            ("pause", Some(SamplerKind::Pause)),
            ("bpf", Some(SamplerKind::Bpf)),
            ("peek", Some(SamplerKind::Peek)),
        ];
        for (name, choice) in choices {
            assert_eq!(record(&format!("-p 4711 --sampler {name}")).choice, choice, "{name}");
        }
    }

    #[test]
    fn what_threads_do_in_the_kernel_is_seen_there_alone() {
        assert!(record("-p 1 --kernel").kernel_frames && record("-p 1 --kernel --sampler bpf").kernel_frames);
        assert!(record("-p 1 --kernel --mode off-cpu").kernel_frames && !record("-p 1").kernel_frames);
        for command in ["record", "top"] {
            for option in ["--sampler pause", "--sampler peek", "--nonblocking"] {
                let error = refused(&format!("{command} -p 1 --kernel {option}"));
                assert_eq!(error, UsageError::KernelFromOutside(option));
                assert!(error.to_string().contains("--sampler bpf"), "{error}");
            }
        }
    }

    #[test]
    fn defaults_are_those_of_py_spy() {
        let plan = record("-p 4711");
        assert_eq!(plan.subject, Subject::Process(Pid::new(4711)));
        assert_eq!(plan.output, Output::New("4711-2026-11-21T06:02:01Z.svg".into()));
        assert_eq!((plan.format.name(), plan.duration), ("flamegraph", None));
        assert_eq!((plan.sampler.rate_hz, plan.choice), (100.0, None));
        assert!(!plan.sampler.include_idle && !plan.sampler.gil_only);
        assert_eq!(plan.view, ViewOptions { weight: Weight::Cpu, ..ViewOptions::default() });
    }

    #[test]
    fn samples_weigh_what_the_view_is_of() {
        assert_eq!(record("-p 1 -i").view.weight, Weight::Wall);
        assert_eq!(record("-p 1 -g -f speedscope").view.weight, Weight::Wall);
        assert_eq!(record("-p 1 -f speedscope").view.weight, Weight::Cpu);
        assert_eq!(record("-p 1 -i -f raw").view.weight, Weight::Samples);
    }

    #[test]
    fn every_option_reaches_its_place() {
        let plan = record("-p 0xFf -o x -f raw -d 2.5 -r 0.5 -t -g -i -s --full-filenames --nonblocking");
        assert!(plan.subprocesses && plan.view.processes);
        assert_eq!(plan.subject, Subject::Process(Pid::new(255)));
        assert_eq!((plan.output, plan.format.name()), (Output::File("x".into()), "raw"));
        assert_eq!(plan.duration, Some(Duration::from_millis(2500)));
        assert_eq!((plan.sampler.rate_hz, plan.choice), (0.5, Some(SamplerKind::Peek)));
        assert!(plan.sampler.include_idle && plan.sampler.gil_only);
        assert!(plan.view.threads && plan.view.full_filenames);
        for (options, lines) in [
            ("", Lines::Line),
            ("-F", Lines::FirstLine),
            ("--nolineno", Lines::None),
            ("-F --nolineno", Lines::None),
        ] {
            assert_eq!(record(&format!("-p 1 {options}")).view.line_numbers, lines, "{options}");
        }
    }

    #[test]
    fn processes_are_merged_where_format_can() {
        for format in ["raw", "flamegraph", "speedscope"] {
            let plan = record(&format!("-p 1 -s --merge-processes -f {format}"));
            assert!(plan.view.processes && plan.view.merge_processes, "{format}");
        }
        assert!(!record("-p 1 -s").view.merge_processes);
        let error = refused("record -p 1 -s --merge-processes -f chrometrace");
        assert_eq!(error, UsageError::CannotMerge("chrometrace"));
        let words = ["profiler", "record", "-p", "1", "--merge-processes"];
        assert_eq!(Flags::try_parse_from(words).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn a_live_view_samples_every_thread_and_chooses_what_it_shows() {
        let top = |arguments: &str| match planned(&format!("top {arguments}")) {
            Ok(Plan::Top(plan)) => plan,
            _ => panic!("{arguments}: no live view"),
        };
        let plan = top("-p 4711 -r 50 --delay 2.5 -g");
        assert!(plan.sampler.include_idle && !plan.sampler.gil_only);
        assert!(!plan.settings.include_idle && plan.settings.gil_only && plan.settings.line_numbers);
        assert_eq!((plan.sampler.rate_hz, plan.settings.interval.as_nanos()), (50.0, 2_500_000_000));
        assert_eq!(plan.settings.file, "4711-2026-11-21T06:02:01Z.svg");
        assert!(!top("-i --nolineno -- python3 x.py").settings.line_numbers);
        for text in ["0", "0.01", "-1", "nan", "4000", "soon"] {
            assert_eq!(refused(&format!("top -p 1 --delay {text}")), UsageError::BadDelay(text.into()));
        }
    }

    #[test]
    fn format_follows_the_name_then_the_ending() {
        let cases = [
            ("-o x.svg", "flamegraph"),
            ("-o x.txt", "raw"),
            ("-o x.raw", "raw"),
            ("-o x.collapsed", "raw"),
            ("-o x.folded", "raw"),
            ("-o x.json", "speedscope"),
            ("-o x.speedscope.json", "speedscope"),
            ("-o x.JSON", "speedscope"),
            ("-o x", "flamegraph"),
            ("-o x.other", "flamegraph"),
            ("-o x.svg -f raw", "raw"),
            ("-f speedscope", "speedscope"),
            ("-o -", "raw"),
            ("-o - -f flamegraph", "flamegraph"),
        ];
        for (options, format) in cases {
            assert_eq!(record(&format!("-p 1 {options}")).format.name(), format, "{options}");
        }
        assert_eq!(record("-p 1 -o -").output, Output::Stdout);
    }

    #[test]
    fn files_without_a_name_are_called_after_what_is_profiled() {
        let cases = [
            ("-f raw -- /usr/bin/python3 x.py", "python3-2026-11-21T06:02:01Z.txt"),
            ("-f speedscope -p 7", "7-2026-11-21T06:02:01Z.json"),
        ];
        for (options, name) in cases {
            assert_eq!(record(options).output, Output::New(name.into()), "{options}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [(0, (1970, 1, 1)), (58, (1970, 2, 28)), (59, (1970, 3, 1)), (789, (1972, 2, 29))];
        for (days, date) in cases {
            assert_eq!(date_of(days), date);
        }
        assert_eq!((date_of(11_016), date_of(11_017)), ((2000, 2, 29), (2000, 3, 1)));
        assert_eq!(date_of(20_453), (2025, 12, 31));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let bad_rates = ["0", "-5", "nan", "inf", "1e9", "0.0001", "fast", "", "1,5"];
        for text in bad_rates {
            assert_eq!(parse_rate(text), Err(UsageError::BadRate(text.into())));
        }
        for text in ["0", "0.01", "101", "nan", "much", ""] {
            assert_eq!(parse_max_cpu(text), Err(UsageError::BadMaxCpu(text.into())));
        }
        assert_eq!((parse_max_cpu("10"), parse_max_cpu("100")), (Ok(0.1), Ok(1.0)));
        for text in ["0", "-1", "nan", "inf", "1e300", "soon", "", "1e-12"] {
            assert_eq!(parse_duration(text), Err(UsageError::BadDuration(text.into())));
        }
        for text in ["0", "-1", "0x", "x10", "4294967296", "4194305", "1.5", ""] {
            assert_eq!(parse_pid(text), Err(UsageError::BadPid(text.into())));
        }
        let own = std::process::id();
        assert_eq!(parse_pid(&own.to_string()), Err(UsageError::OwnPid(Pid::new(own))));
        assert_eq!(refused("record"), UsageError::NoSubject);
        assert_eq!(refused("record -p 1 -- ls"), UsageError::TwoSubjects);
        assert_eq!(refused("dump"), UsageError::NoPid);
        assert_eq!(refused("record -p 1 -r -3"), UsageError::BadRate("-3".into()));
        assert_eq!(refused("record -p 1 --max-cpu -3"), UsageError::BadMaxCpu("-3".into()));
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        let lines = ["record -p 1 --native", "dump -p 1 -n", "top --pid 1 --native"];
        for line in lines {
            assert!(matches!(refused(line), UsageError::NotYet(..)), "{line}");
        }
    }
}
