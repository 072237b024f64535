//! What was typed: the command line as clap understands it. What is meant by it is decided in `plan`.
//!
//! Values stay text where clap's own parsers would be too generous (a rate of `nan`) or too terse. Options
//! that py-spy has and this profiler does not have yet are recognised, so that they can be refused by name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use profiler_output::FORMATS;

/// Looks into running Python processes without touching their code
#[derive(Debug, Parser)]
#[command(name = "profiler", version, infer_subcommands = true, max_term_width = 100)]
#[command(after_help = "Examples:
  profiler record -o flame.svg -- python3 train.py    run a command and draw where its time goes
  profiler record --pid 4711 --duration 30            the same for a running process, for 30 seconds
  profiler top --pid 4711                             look at it live
  profiler dump --pid 4711                            where is it stuck?

Subcommands may be abbreviated: `profiler r` is `profiler record`.
Exit status: 0; the command's own when it was launched and failed; 1 on errors; 2 on wrong usage.")]
pub struct Flags {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Samples a process or a command and writes a flame graph, collapsed stacks, a speedscope file or a trace
    #[command(after_help = RECORD_EXAMPLES)]
    Record(RecordFlags),
    /// Prints the stack of every thread of a process
    // `d` was its abbreviation before `doctor` came, and is py-spy's.
    #[command(after_help = DUMP_EXAMPLES, alias = "d")]
    Dump(DumpFlags),
    /// Tells whether this host, and a process, can be profiled, and what is missing
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorFlags),
    /// Writes the script that makes a shell complete the command line
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsFlags),
    /// Writes the manual page
    #[command(after_help = MAN_EXAMPLES)]
    Man,
    /// Shows live where the time goes
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopFlags),
}

const RECORD_EXAMPLES: &str = "Examples:
  profiler record -o flame.svg -- python3 train.py    run a command until it ends
  profiler record -p 4711 -d 30 -o stacks.txt         30 seconds of a process, as collapsed stacks
  profiler record -p 4711 -t -i -o idle.json          all threads, waiting ones too, for speedscope.app
  profiler record -p 4711 --mode off-cpu              for how long threads wait, and for what

Ctrl-C ends the recording, not the data: what was sampled until then is written.";

const TOP_EXAMPLES: &str = "Examples:
  profiler top -p 4711                    look at a process until q
  profiler top -- python3 train.py        run a command and look at it
  profiler top -p 4711 -i --delay 5       threads that wait too, a new picture every 5 seconds

? shows the keys, w writes what is seen to a file.";

const DUMP_EXAMPLES: &str = "Examples:
  profiler dump -p 4711           print where every thread is
  profiler dump -p 4711 --json    the same for programs
  profiler dump -c core.4711      print where every thread was when the core file was made";

const COMPLETIONS_EXAMPLES: &str = "Examples:
  source <(profiler completions bash)                                  for this shell
  profiler completions bash > ~/.local/share/bash-completion/completions/profiler
  profiler completions zsh > ~/.zfunc/_profiler                        a folder of $fpath
  profiler completions fish > ~/.config/fish/completions/profiler.fish";

const MAN_EXAMPLES: &str = "Examples:
  profiler man > /usr/local/share/man/man1/profiler.1
  profiler man | man -l -";

const DOCTOR_EXAMPLES: &str = "Examples:
  profiler doctor                 what does this host allow?
  profiler doctor --pid 4711      can this process be recorded? if not, what gives the right?

Nothing is stopped: a process is only read. To see what this host allows, doctor tries it on a child
process of its own.
Exit status: 0 when record would work, 1 when it would not, 2 on wrong usage.";

/// What `record` takes.
#[derive(Debug, Default, Args)]
#[command(override_usage = "profiler record [OPTIONS] --pid <PID>
       profiler record [OPTIONS] -- <COMMAND>...")]
pub struct RecordFlags {
    /// Process to sample, its number in decimal or 0xhex
    #[arg(short, long, allow_negative_numbers = true)]
    pub pid: Option<String>,
    #[command(flatten)]
    pub output: OutputFlags,
    /// How long to sample, in seconds (fractions too) or `unlimited`
    #[arg(short, long, value_name = "SECONDS", default_value = "unlimited", allow_negative_numbers = true)]
    pub duration: String,
    /// Leave a command that `record` has started running when the duration is over, instead of ending it
    #[arg(long)]
    pub keep_running: bool,
    #[command(flatten)]
    pub pace: PaceFlags,
    #[command(flatten)]
    pub stacks: StackFlags,
    #[command(flatten)]
    pub time: TimeFlags,
    #[command(flatten)]
    pub sampler: SamplerFlags,
    /// Also its child processes, and theirs, those that come later too: each process is a stack of its own
    #[arg(short, long)]
    pub subprocesses: bool,
    /// Add up processes of the same command line, and with -t their threads of the same name, such as the workers of a
    /// pool: for raw, flamegraph and speedscope
    #[arg(long, requires = "subprocesses")]
    pub merge_processes: bool,
    /// Also the functions of the kernel that threads run, below the Python that called them; with --mode, those in which
    /// they wait. For the sampler bpf alone
    #[arg(long)]
    pub kernel: bool,
    /// Later: native frames.
    #[arg(short, long, hide = true)]
    pub native: bool,
    /// Command to run and sample until it ends
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Where `record` writes, and what.
#[derive(Debug, Default, Args)]
pub struct OutputFlags {
    /// File to write; - is stdout [default: NAME-TIME.ENDING, the name being the command's or the pid]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What to write [default: by the file's ending (.svg; .txt, .raw, .folded, .collapsed; .json; .trace.json), else
    /// flamegraph; raw on stdout]
    #[arg(short, long, value_parser = format_names())]
    pub format: Option<String>,
    /// Also write the ledger, the counts and costs that end every recording, as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub ledger_json: Option<PathBuf>,
}

/// How often samples are taken, and what that may cost.
#[derive(Debug, Default, Args)]
pub struct PaceFlags {
    /// Samples per second
    #[arg(short, long, default_value = "100", allow_negative_numbers = true)]
    pub rate: String,
    /// How much CPU time the profiler may use, in percent of one core. Above that it gives up its real-time priority and then
    /// lowers its rate; each sample then stands for more time
    #[arg(long, value_name = "PERCENT", default_value = "10", allow_negative_numbers = true)]
    pub max_cpu: String,
}

/// How `record` shows stacks.
#[derive(Debug, Default, Args)]
pub struct StackFlags {
    /// Merge the lines of a function: show the line where it starts instead of the one that ran
    #[arg(short = 'F', long)]
    pub function: bool,
    /// Show no line numbers
    #[arg(long)]
    pub nolineno: bool,
    /// Show whole file names, not only the part that tells the package
    #[arg(long)]
    pub full_filenames: bool,
    /// Show each thread as a stack of its own
    #[arg(short, long)]
    pub threads: bool,
}

/// Which time of the threads `record` counts.
#[derive(Debug, Default, Args)]
pub struct TimeFlags {
    /// What time counts: cpu, on a CPU; off-cpu, waiting, exact and with what each wait is for; wall, both; gil, while
    /// the GIL is held
    #[arg(long, value_enum, value_name = "WHICH", default_value = "cpu", conflicts_with_all = ["gil", "idle"])]
    pub mode: Mode,
    /// Waits shorter than so many seconds are summed by what they are for, without their stacks: bounds what off-cpu,
    /// wall and gil cost
    #[arg(long, value_name = "SECONDS", default_value = "0.0001", allow_negative_numbers = true)]
    pub min_wait: String,
    /// Only samples of threads that hold the GIL
    #[arg(short, long)]
    pub gil: bool,
    /// Also samples of threads that are idle: waiting or asleep
    #[arg(short, long)]
    pub idle: bool,
}

/// Which way of sampling is taken.
#[derive(Debug, Default, Args)]
pub struct SamplerFlags {
    /// Never stop the target, not for microseconds: samples that cannot be proved true are counted as lost
    #[arg(long)]
    pub nonblocking: bool,
    /// Which way of sampling to take: bpf runs inside the kernel and stops nothing; pause stops one thread for some
    /// microseconds; peek is --nonblocking; auto takes the best that is possible here
    #[arg(
        long = "sampler",
        value_enum,
        value_name = "WHICH",
        default_value = "auto",
        conflicts_with = "nonblocking"
    )]
    pub name: SamplerName,
}

/// What `--mode` takes: which time of a thread counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// On a CPU
    #[default]
    Cpu,
    /// On a CPU or not
    Wall,
    /// While it holds the GIL
    Gil,
    /// Not on a CPU
    OffCpu,
}

/// What `--sampler` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SamplerName {
    /// The best one that is possible here
    #[default]
    Auto,
    /// One short stop of one thread for each sample
    Pause,
    /// Inside the kernel, without any stop
    Bpf,
    /// Without any stop: what cannot be proved true is lost
    Peek,
}

/// The formats that `--format` takes.
fn format_names() -> PossibleValuesParser {
    FORMATS.into_iter().map(|format| PossibleValue::new(format.name())).collect::<Vec<_>>().into()
}

/// What `top` takes.
#[derive(Debug, Default, Args)]
#[command(override_usage = "profiler top [OPTIONS] --pid <PID>
       profiler top [OPTIONS] -- <COMMAND>...")]
pub struct TopFlags {
    /// Process to look at, its number in decimal or 0xhex
    #[arg(short, long, allow_negative_numbers = true)]
    pub pid: Option<String>,
    #[command(flatten)]
    pub pace: PaceFlags,
    /// Seconds between two pictures (fractions too)
    #[arg(short, long, value_name = "SECONDS", default_value = "1", allow_negative_numbers = true)]
    pub delay: String,
    /// In files that are written, merge the lines of a function
    #[arg(short = 'F', long)]
    pub function: bool,
    /// Show no line numbers
    #[arg(long)]
    pub nolineno: bool,
    /// Show whole file names, not only the part that tells the package
    #[arg(long)]
    pub full_filenames: bool,
    /// Only samples of threads that hold the GIL; g switches
    #[arg(short, long)]
    pub gil: bool,
    /// Also samples of threads that are idle: waiting or asleep; i switches
    #[arg(short, long)]
    pub idle: bool,
    #[command(flatten)]
    pub sampler: SamplerFlags,
    /// Also its child processes, and theirs, those that come later too
    #[arg(short, long)]
    pub subprocesses: bool,
    /// Also the functions of the kernel that threads run, below the Python that called them, in the call tree, the flame
    /// view and files. For the sampler bpf alone
    #[arg(long)]
    pub kernel: bool,
    /// Later: native frames.
    #[arg(short, long, hide = true)]
    pub native: bool,
    /// Command to run and look at
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `dump` takes.
#[derive(Debug, Default, Args)]
#[command(override_usage = "profiler dump [OPTIONS] --pid <PID>
       profiler dump [OPTIONS] --core <FILE>")]
pub struct DumpFlags {
    /// Process to look into, its number in decimal or 0xhex
    #[arg(short, long, allow_negative_numbers = true)]
    pub pid: Option<String>,
    /// Show whole file names, not only the part that tells the package
    #[arg(long)]
    pub full_filenames: bool,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
    /// Never stop the process, not for microseconds: a stack that cannot be proved true is not shown
    #[arg(long)]
    pub nonblocking: bool,
    /// Show the variables of every frame; twice for longer values
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub locals: u8,
    /// Show the line of source that every frame is at, and mark the expression that runs (3.11+)
    /// [default: auto: where the output is read at a terminal]
    #[arg(long, value_name = "WHEN", value_parser = ["auto", "always", "never"], num_args = 0..=1,
          require_equals = true, default_missing_value = "always", hide_possible_values = true)]
    pub source: Option<String>,
    /// Show asyncio's tasks: what each stands at and which it waits for (3.14+)
    /// [default: auto: in JSON and at a terminal]
    #[arg(long = "async", value_name = "WHEN", value_parser = ["auto", "always", "never"], num_args = 0..=1,
          require_equals = true, default_missing_value = "always", hide_possible_values = true)]
    pub tasks: Option<String>,
    /// Core file to look into instead of a process
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["pid", "subprocesses"])]
    pub core: Option<PathBuf>,
    /// Folder with the files that the core's process had, if they are not where it had them (a container's)
    #[arg(long, value_name = "FOLDER", requires = "core", conflicts_with = "pid")]
    pub sysroot: Option<PathBuf>,
    /// Also its child processes, and theirs
    #[arg(short, long)]
    pub subprocesses: bool,
    /// Later: native frames.
    #[arg(short, long, hide = true)]
    pub native: bool,
}

/// What `doctor` takes.
#[derive(Debug, Default, Args)]
pub struct DoctorFlags {
    /// Process to look into, its number in decimal or 0xhex
    #[arg(short, long, allow_negative_numbers = true)]
    pub pid: Option<String>,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
}

/// What `completions` takes.
#[derive(Debug, Args)]
pub struct CompletionsFlags {
    /// The shell
    #[arg(value_parser = PossibleValuesParser::new(["bash", "zsh", "fish"]))]
    pub shell: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn record(arguments: &str) -> RecordFlags {
        let words = ["profiler", "r"].into_iter().chain(arguments.split(' ').filter(|word| !word.is_empty()));
        match Flags::try_parse_from(words).unwrap().command {
            Command::Record(flags) => flags,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_accepts_the_definition() {
        Flags::command().debug_assert();
    }

    #[test]
    fn every_short_form_of_record_is_understood() {
        let flags = record("-p 0x10 -o x.svg -f raw -d 1.5 -r 10 -F -t -g -i -s -n");
        assert_eq!(flags.pid.as_deref(), Some("0x10"));
        assert_eq!((flags.duration.as_str(), flags.pace.rate.as_str()), ("1.5", "10"));
        assert_eq!(flags.output.format.as_deref(), Some("raw"));
        assert!(flags.stacks.function && flags.stacks.threads && flags.time.gil && flags.time.idle);
        assert!(flags.subprocesses && flags.native);
    }

    #[test]
    fn everything_after_the_command_belongs_to_the_command() {
        for line in ["-r 10 -- python3 -i x.py --rate 5", "-r 10 python3 -i x.py --rate 5"] {
            let flags = record(line);
            assert_eq!(flags.command, ["python3", "-i", "x.py", "--rate", "5"], "{line}");
            assert_eq!((flags.pace.rate.as_str(), flags.time.idle), ("10", false), "{line}");
        }
    }

    #[test]
    fn subcommands_may_be_abbreviated() {
        let command = |word: &str| Flags::try_parse_from(["profiler", word]).unwrap().command;
        for word in ["r", "rec", "record"] {
            assert!(matches!(command(word), Command::Record(_)), "{word}");
        }
        for word in ["d", "du", "dump"] {
            assert!(matches!(command(word), Command::Dump(_)), "{word}");
        }
        assert!(matches!(command("t"), Command::Top(_)));
        assert!(matches!(command("do"), Command::Doctor(_)));
    }

    #[test]
    fn what_is_unknown_is_a_usage_error() {
        for line in [["profiler", "record", "--no-such-option"], ["profiler", "record", "-fpng"]] {
            assert_eq!(Flags::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
        assert_eq!(Flags::try_parse_from(["profiler"]).unwrap_err().exit_code(), 2);
        assert_eq!(Flags::try_parse_from(["profiler", "--version"]).unwrap_err().exit_code(), 0);
    }
}
