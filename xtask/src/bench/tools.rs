//! The profilers that are compared: how each is told to record or dump, and how its account is read.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::{Fixture, Interpreter, Scratch, profiler_path};

use super::judged::Verdict;
use super::measured::{Ended, Measured};
use super::peers;

/// How much longer than it was told to a profiler may take before it is asked to end.
const OVERTIME: Duration = Duration::from_secs(3);

/// A profiler in one of its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Ours, inside the kernel.
    Bpf,
    /// Ours, stopping one thread for an instant.
    Pause,
    /// Ours, stopping nothing.
    Peek,
    /// py-spy as it comes: it stops all threads.
    PySpy,
    /// py-spy, stopping nothing.
    PySpyNonblocking,
    /// CPython's own sampler as it comes: it stops nothing.
    Cpython,
    /// CPython's own sampler, stopping all threads.
    CpythonBlocking,
}

/// What a profiler is told to record.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Samples a second.
    pub rate: u32,
    /// For how many seconds: whole ones, as the peers want them.
    pub seconds: u32,
    /// All threads, waiting ones too.
    pub all_threads: bool,
}

/// A recording that has begun.
#[derive(Debug)]
pub struct Recording {
    /// The profiler at work.
    pub process: Measured,
    tool: Tool,
    task: Task,
    file: PathBuf,
}

/// What came of a recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What the profiler used and said.
    pub ended: Ended,
    /// How many seconds it sampled.
    pub seconds: f64,
    /// The part of its attempts that it says it lost.
    pub lost: f64,
    /// The stacks that it wrote.
    pub verdict: Verdict,
}

impl Tool {
    /// What the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Bpf => "ours (bpf)",
            Tool::Pause => "ours (pause)",
            Tool::Peek => "ours (peek: --nonblocking)",
            Tool::PySpy => "py-spy",
            Tool::PySpyNonblocking => "py-spy --nonblocking",
            Tool::Cpython => "profiling.sampling",
            Tool::CpythonBlocking => "profiling.sampling --blocking",
        }
    }

    /// Those that can record what runs in this interpreter here.
    pub fn for_what_runs(interpreter: &Interpreter) -> Vec<Tool> {
        let mut tools = vec![Tool::Bpf];
        tools.extend(Tool::for_target(interpreter));
        tools
    }

    /// Those that can look at every thread of this interpreter here; for CPython's sampler, target and sampler are the same
    /// interpreter.
    pub fn for_target(interpreter: &Interpreter) -> Vec<Tool> {
        let mut tools = vec![Tool::Pause, Tool::Peek, Tool::PySpy, Tool::PySpyNonblocking];
        if has_sampler(interpreter) {
            tools.extend([Tool::Cpython, Tool::CpythonBlocking]);
        }
        tools
    }

    /// Whether it is ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Tool::Bpf | Tool::Pause | Tool::Peek)
    }

    /// Lets it record a fixture as collapsed stacks.
    pub fn record(
        self,
        target: (&Interpreter, &Fixture),
        task: Task,
        scratch: &Scratch,
    ) -> Result<Recording> {
        let (interpreter, fixture) = target;
        let (file, name) = self.output_file(interpreter, scratch);
        let _ = fs::remove_file(&file);
        let mut words = self.words_before(interpreter)?;
        let options = match self {
            Tool::Bpf | Tool::Pause | Tool::Peek | Tool::PySpy | Tool::PySpyNonblocking => {
                format!("record -f raw -r {} -d {} -p {}", task.rate, task.seconds, fixture.pid())
            }
            Tool::Cpython | Tool::CpythonBlocking => {
                format!("attach --collapsed -r {} -d {} {}", task.rate, task.seconds, fixture.pid())
            }
        };
        words.extend(options.split(' ').map(OsString::from));
        words.extend(self.recording_options().iter().map(OsString::from));
        // Threads that wait are on no CPU, and no tick meets them.
        if task.all_threads && self != Tool::Bpf {
            words.push(if self.is_cpythons() { "-a" } else { "-i" }.into());
        }
        words.extend(["-o".into(), name.into()]);
        Ok(Recording { process: Measured::start(&words)?, tool: self, task, file })
    }

    /// The words of a command that dumps a process once.
    pub fn dump_words(self, interpreter: &Interpreter, pid: u32) -> Result<Vec<OsString>> {
        let mut words = self.words_before(interpreter)?;
        words.push("dump".into());
        if self.is_ours() || matches!(self, Tool::PySpy | Tool::PySpyNonblocking) {
            words.push("--pid".into());
        }
        words.push(pid.to_string().into());
        if !matches!(self, Tool::Bpf | Tool::Pause) {
            words.extend(self.recording_options().iter().map(OsString::from));
        }
        Ok(words)
    }

    /// The words up to the subcommand.
    pub fn words_before(self, interpreter: &Interpreter) -> Result<Vec<OsString>> {
        Ok(match self {
            Tool::Bpf | Tool::Pause | Tool::Peek => vec![profiler_path().into()],
            Tool::PySpy | Tool::PySpyNonblocking => vec![peers::py_spy()?.into()],
            Tool::Cpython | Tool::CpythonBlocking => {
                let mut words = interpreter.words();
                words.extend(["-m".into(), "profiling.sampling".into()]);
                words
            }
        })
    }

    fn is_cpythons(self) -> bool {
        matches!(self, Tool::Cpython | Tool::CpythonBlocking)
    }

    /// What makes it record in this mode.
    pub fn recording_options(self) -> &'static [&'static str] {
        match self {
            Tool::Bpf => &["--sampler", "bpf"],
            Tool::Pause => &["--sampler", "pause"],
            Tool::PySpy | Tool::Cpython => &[],
            Tool::Peek | Tool::PySpyNonblocking => &["--nonblocking"],
            Tool::CpythonBlocking => &["--blocking"],
        }
    }

    /// Where its output appears, and what it is to be told.
    fn output_file(self, interpreter: &Interpreter, scratch: &Scratch) -> (PathBuf, PathBuf) {
        match (self, interpreter.root()) {
            (Tool::Cpython | Tool::CpythonBlocking, Some(root)) => {
                let name = format!("tmp/profiler-bench-{}.txt", std::process::id());
                (root.join(&name), Path::new("/").join(name))
            }
            _ => (scratch.file("out.txt"), scratch.file("out.txt")),
        }
    }

    /// How many seconds it sampled and which part of its attempts it lost, by its own words.
    fn account(self, ended: &Ended, task: Task, started: Instant) -> Result<(f64, f64)> {
        let text = ended.text();
        let account = match self {
            Tool::Bpf | Tool::Pause | Tool::Peek => our_account(&text),
            Tool::Cpython | Tool::CpythonBlocking => cpythons_account(&text),
            Tool::PySpy | Tool::PySpyNonblocking => {
                // It counts intervals, not time: it samples from its first words to its end.
                let begun = ended.said.iter().find(|(_, line)| line.contains("Sampling process"));
                let begun = begun.map_or(started, |(at, _)| *at);
                py_spys_errors(&text).map(|lost| (ended.at.duration_since(begun).as_secs_f64(), lost))
            }
        };
        account.with_context(|| {
            format!("{} at {} Hz does not account for itself:\n{text}", self.name(), task.rate)
        })
    }
}

impl Recording {
    /// Waits for its end and reads what it wrote.
    pub fn finish(self, started: Instant) -> Result<Recorded> {
        let planned = Duration::from_secs(self.task.seconds.into()) + OVERTIME;
        let ended = self.process.finish(planned.saturating_sub(started.elapsed()))?;
        if !self.file.exists() {
            bail!("{}", ended.last_words());
        }
        let text = fs::read_to_string(&self.file)?;
        fs::remove_file(&self.file)?;
        let verdict = match self.tool {
            Tool::Cpython | Tool::CpythonBlocking => Verdict::of_cpythons(&text)?,
            _ => Verdict::of_collapsed(&text)?,
        };
        ensure!(verdict.samples > 0, "no samples: {}", ended.last_words());
        let (seconds, lost) = self.tool.account(&ended, self.task, started)?;
        Ok(Recorded { ended, seconds, lost, verdict })
    }
}

/// Whether an interpreter has CPython's own sampler, and can use it here.
fn has_sampler(interpreter: &Interpreter) -> bool {
    let mut words = interpreter.inline_words("import profiling.sampling.sample");
    let mut command = std::process::Command::new(words.remove(0));
    let sees_processes = interpreter.root().is_none() || peers::root_has_proc();
    crate::run::succeeds(command.args(words)) && sees_processes
}

/// `11,988 samples in 120.3 s (100.0 Hz asked); lost 12 (0.10 %): ...`
fn our_account(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find(|line| line.contains(" sample") && line.contains("Hz asked"))?;
    let (samples, rest) = line.split_once(" in ")?;
    let shown = samples.split(' ').next()?;
    let seconds = duration(rest.split(" (").next()?)?;
    let lost = match rest.split_once("; lost ") {
        Some((_, lost)) => number(lost.split(' ').next()?)?,
        None => 0.0,
    };
    Some((seconds, lost / (number(shown)? + lost).max(1.0)))
}

/// `Captured 3001 samples in 3.00 seconds`, `Error rate: 8.10`
fn cpythons_account(text: &str) -> Option<(f64, f64)> {
    let captured = text.lines().find_map(|line| line.strip_prefix("Captured "))?;
    let seconds = captured.split(" in ").nth(1)?.split(' ').next()?;
    let errors = text.lines().find_map(|line| line.strip_prefix("Error rate: "))?;
    Some((number(seconds)?, number(errors)? / 100.0))
}

/// `Samples: 2999 Errors: 0`
fn py_spys_errors(text: &str) -> Option<f64> {
    let word_after = |label: &str| number(text.split_once(label)?.1.split_whitespace().next()?);
    let (samples, errors) = (word_after("Samples: ")?, word_after("Errors: ")?);
    Some(errors / (samples + errors).max(1.0))
}

/// The mean time of an interruption, in seconds: `interrupted 12,034 times, 31.20 ms in all (...`
pub fn interrupted(text: &str) -> Option<f64> {
    let (times, rest) = text.split_once("interrupted ")?.1.split_once(" times, ")?;
    Some(duration(rest.split(" in all").next()?)? / number(times)?)
}

/// Of `12,034` or `3.00`.
fn number(text: &str) -> Option<f64> {
    text.trim().replace(',', "").parse().ok()
}

/// Seconds of `850 ns`, `12.3 µs`, `4.56 ms`, `7.890 s`.
fn duration(text: &str) -> Option<f64> {
    let (value, unit) = text.trim().split_once(' ')?;
    let unit = match unit {
        "ns" => 1e-9,
        "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(number(value)? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_is_understood() {
        let ours = "stopped: 3 s are over\nwrote x\n391 samples in 3.055 s (1000.0 Hz asked); \
                    lost 2,739 (87.51 %): 2,739 sampler late\n";
        let (seconds, lost) = our_account(ours).unwrap();
        assert!((seconds - 3.055).abs() < 1e-9 && (lost - 0.8751).abs() < 1e-4);
        let idle = "1,000 samples in 999.00 ms (100.0 Hz asked), 3 more not asked for; none lost";
        assert_eq!(our_account(idle), Some((0.999, 0.0)));
        let single = "1 sample in 3.00 s (1000.0 Hz asked); lost 3 (75.00 %): 3 sampler late";
        assert_eq!(our_account(single), Some((3.0, 0.75)));
        let in_kernel =
            "target never stopped; interrupted 2,000 times, 6.00 ms in all (0.2 %), 9.0 µs at most";
        assert!((interrupted(in_kernel).unwrap() - 3e-6).abs() < 1e-12);
        let cpythons =
            "Captured 3001 samples in 3.00 seconds\nSample rate: 1000.31 samples/sec\nError rate: 8.10";
        assert_eq!(cpythons_account(cpythons), Some((3.0, 0.081)));
        let py_spys = "py-spy> Wrote raw flamegraph data to 'x'. Samples: 300 Errors: 100\npy-spy> You can";
        assert_eq!(py_spys_errors(py_spys), Some(0.25));
    }
}
