//! What a command line means: every value is checked and every default decided, and nothing is done yet.

mod limits;
mod new_file;
mod usage_error;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap_complete::Shell;
use profiler_model::Pid;
use profiler_output::{FORMATS, Format, Lines, ViewOptions, Weight, format_named, format_of_file};
use profiler_profile::{CapturePolicy, ViewFilter};
use profiler_sampler::{ReprLimits, SamplerKind, SamplerOptions};
use profiler_tui::Settings;

use self::new_file::default_name;
use self::values::{parse_delay, parse_duration, parse_max_cpu, parse_min_wait, parse_pid, parse_rate};
use crate::flags::{Command, DumpFlags, Flags, Mode, RecordFlags, SamplerFlags, SamplerName, TopFlags};

pub use self::usage_error::UsageError;

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
    /// Which samples are shown.
    pub filter: ViewFilter,
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

/// Decides what a command line means. `now` is a part of the name of files that the user has not named.
///
/// # Errors
/// When the command line cannot be carried out.
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

fn record_plan(mut flags: RecordFlags, now: SystemTime) -> Result<RecordPlan, UsageError> {
    refuse_what_comes_later(&[(flags.native, "-n, --native", "show native frames")])?;
    let rate_hz = parse_rate(&flags.pace.rate)?;
    let duration = parse_duration(&flags.duration)?;
    let subject = parse_subject(flags.pid.as_deref(), std::mem::take(&mut flags.command))?;
    let format = choose_format(flags.output.format.as_deref(), flags.output.file.as_deref());
    if flags.merge_processes && !format.can_merge_processes() {
        return Err(UsageError::CannotMerge(format.name()));
    }
    let view = record_view(&flags, format);
    let output = choose_output(flags.output.file, &subject, format, now);
    let choice = sampler_choice(&flags.sampler);
    let kernel_frames = choose_kernel_frames(flags.kernel, &flags.sampler)?;
    let kind = choice.unwrap_or_default();
    let filter = ViewFilter {
        idle: flags.time.idle || flags.time.mode == Mode::Wall,
        gil_only: flags.time.gil || flags.time.mode == Mode::Gil,
    };
    let max_cpu = parse_max_cpu(&flags.pace.max_cpu)?;
    let (subprocesses, mode) = (flags.subprocesses, flags.time.mode);
    let min_wait = parse_min_wait(&flags.time.min_wait)?;
    let sampler = SamplerOptions { rate_hz, kind, policy: filter.policy(), max_cpu, native: false };
    Ok(RecordPlan {
        subject,
        output,
        format,
        ledger_json: flags.output.ledger_json.map(Output::File),
        duration,
        keep_running: flags.keep_running,
        subprocesses,
        choice,
        sampler,
        // What is reported of time off the CPU is about threads that do not run.
        filter: ViewFilter { idle: filter.idle || mode == Mode::OffCpu, ..filter },
        mode,
        min_wait,
        kernel_frames,
        view,
    })
}

/// How a recording is shown.
fn record_view(flags: &RecordFlags, format: &dyn Format) -> ViewOptions {
    ViewOptions {
        line_numbers: choose_lines(flags.stacks.function, flags.stacks.nolineno),
        full_filenames: flags.stacks.full_filenames,
        threads: flags.stacks.threads,
        processes: flags.subprocesses,
        merge_processes: flags.merge_processes,
        weight: match flags.time.mode {
            Mode::Cpu => choose_weight(format, flags.time.idle || flags.time.gil),
            Mode::Wall | Mode::Gil | Mode::OffCpu => Weight::Wall,
        },
        ..ViewOptions::default()
    }
}

fn top_plan(flags: TopFlags, now: SystemTime) -> Result<TopPlan, UsageError> {
    refuse_what_comes_later(&[(flags.native, "-n, --native", "show native frames")])?;
    let rate_hz = parse_rate(&flags.pace.rate)?;
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
    let choice = sampler_choice(&flags.sampler);
    let kernel_frames = choose_kernel_frames(flags.kernel, &flags.sampler)?;
    let kind = choice.unwrap_or_default();
    let max_cpu = parse_max_cpu(&flags.pace.max_cpu)?;
    let sampler = SamplerOptions { rate_hz, kind, policy: CapturePolicy::All, max_cpu, native: false };
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
fn sampler_choice(flags: &SamplerFlags) -> Option<SamplerKind> {
    match flags.name {
        SamplerName::Auto => flags.nonblocking.then_some(SamplerKind::Peek),
        SamplerName::Pause => Some(SamplerKind::Pause),
        SamplerName::Bpf => Some(SamplerKind::Bpf),
        SamplerName::Peek => Some(SamplerKind::Peek),
    }
}

/// Only a sampler inside the kernel sees what threads do there.
fn choose_kernel_frames(asked: bool, flags: &SamplerFlags) -> Result<bool, UsageError> {
    let from_outside = match flags.name {
        SamplerName::Pause => Some("--sampler pause"),
        SamplerName::Peek => Some("--sampler peek"),
        SamplerName::Auto | SamplerName::Bpf => flags.nonblocking.then_some("--nonblocking"),
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

#[cfg(test)]
mod tests;
