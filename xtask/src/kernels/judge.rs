//! What has to come out of each check, by kernel: nothing may be torn, nothing may hang or stay loaded, and what does not
//! work has to say why and what to try.

use anyhow::{Context, Result, bail, ensure};
use profiler_tests::{Collapsed, Frame, labyrinth};

use super::machine::Check;

/// What came out, for the table; or what is wrong with it.
pub type Verdict = Result<String>;

/// Linux 5.19 reports context switches as the programs expect.
const SWITCHES: (u32, u32) = (5, 19);
/// Linux 5.11 no longer counts what programs keep as locked memory.
const NO_LOCKED_MEMORY: (u32, u32) = (5, 11);

/// Where the threads of the fixture `waiting` stand, and how that is shown where the kernel tells what for.
const PLACES: [(&str, &str); 5] = [
    ("main", "<waiting: file>"),
    ("sleeps", "<waiting: sleep>"),
    ("waits_for_lock", "<waiting: lock>"),
    ("waits_for_pipe", "<waiting: file>"),
    ("waits_for_socket", "<waiting: socket>"),
];

/// What has to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The report of `doctor` says these.
    Told(&'static [&'static str]),
    /// Recorded inside the kernel.
    InKernel,
    /// Recorded otherwise, and these words say why.
    Instead(&'static [&'static str]),
    /// Refused, with these words.
    Refused(&'static [&'static str]),
    /// Killed, while the kernel held this many programs.
    Killed(u32),
}

const PAUSE: &str = "sampler: pause";
const LOCKED_MEMORY: &str = "locked memory";
const OLD_SWITCHES: &str = "reports context switches in another form";
const NO_TYPES: &str = "does not describe its types";
const LOCKDOWN: &str = "locked down for confidentiality";
const PARANOID: &str = "kernel.perf_event_paranoid is 3";

/// Judges all checks of one kernel, whose release the first of them tells.
pub fn judge_all(checks: &[Check]) -> Result<Vec<(String, Verdict)>> {
    let (first, checks) = checks.split_first().context("nothing was tried")?;
    let version = version(&first.said).with_context(|| format!("no release of a kernel: {}", first.said))?;
    checks
        .iter()
        .map(|check| {
            let expected = expected(&check.check, version)
                .with_context(|| format!("nobody knows what has to come out of {:?}", check.check))?;
            Ok((check.check.clone(), judge(check, expected)))
        })
        .collect()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn expected(check: &str, version: (u32, u32)) -> Option<Expected> {
    use Expected::{InKernel, Instead, Killed, Refused, Told};
    let tells_switches = version >= SWITCHES;
    let counts_locked_memory = version < NO_LOCKED_MEMORY;
    Some(match check {
        "doctor" => Told(&["takes bpf", "BTF there"]),
        "doctor, no BTF" => Told(&["takes bpf", "no BTF"]),
        "doctor, nobody" => Told(&["bpf cannot be taken", "CAP_BPF and CAP_PERFMON"]),
        "doctor, integrity" => Told(&["takes bpf", "locked down for integrity"]),
        "doctor, confidentiality" => Told(&["bpf cannot be taken", LOCKDOWN]),
        "bpf" | "auto" | "kernel" | "CPU away" | "rate limit 100" | "paranoid 3" | "kptr_restrict 2"
        | "memlock 0" | "no BTF" | "namespace" | "integrity" | "integrity, auto" | "integrity, kernel" => {
            InKernel
        }
        "kill" => Killed(1),
        "kill, wall" => Killed(if tells_switches { 3 } else { 0 }),
        "wall" | "off-cpu" | "gil" | "CPU away, wall" | "namespace, wall" | "integrity, wall"
        | "integrity, off-cpu"
            if tells_switches =>
        {
            InKernel
        }
        "off-cpu" | "integrity, off-cpu" => Refused(&[OLD_SWITCHES]),
        "wall" | "gil" | "CPU away, wall" | "namespace, wall" | "integrity, wall" => Instead(&[OLD_SWITCHES]),
        "no BTF, wall" => Instead(&[NO_TYPES]),
        "no BTF, off-cpu" => Refused(&[NO_TYPES]),
        "nobody" => Refused(&["CAP_BPF and CAP_PERFMON"]),
        "nobody, auto" => Instead(&["CAP_BPF and CAP_PERFMON"]),
        _ => {
            return expected_of_few_rights(check, counts_locked_memory)
                .or_else(|| expected_when_locked_down(check, tells_switches));
        }
    })
}

/// With both capabilities and nothing else.
fn expected_of_few_rights(check: &str, counts_locked_memory: bool) -> Option<Expected> {
    use Expected::{InKernel, Instead, Refused};
    Some(match check {
        "two capabilities" => InKernel,
        "two capabilities, paranoid 3" => Refused(&[PARANOID]),
        "two capabilities, paranoid 3, auto" => Instead(&[PARANOID]),
        "two capabilities, memlock 0" if counts_locked_memory => Refused(&[LOCKED_MEMORY]),
        "two capabilities, memlock 0, auto" if counts_locked_memory => Instead(&[LOCKED_MEMORY]),
        "two capabilities, memlock 0" | "two capabilities, memlock 0, auto" => InKernel,
        _ => return None,
    })
}

fn expected_when_locked_down(check: &str, tells_switches: bool) -> Option<Expected> {
    use Expected::{Instead, Refused};
    let why: &[&str] = if tells_switches { &[LOCKDOWN] } else { &[OLD_SWITCHES] };
    Some(match check {
        "confidentiality" | "confidentiality, kernel" => Refused(&[LOCKDOWN]),
        "confidentiality, auto" => Instead(&[LOCKDOWN]),
        "confidentiality, wall" => Instead(why),
        "confidentiality, off-cpu" => Refused(why),
        _ => return None,
    })
}

fn judge(check: &Check, expected: Expected) -> Verdict {
    ensure!(!check.said.contains("HANGS") && !check.said.contains("panicked"), "{}", check.said);
    ensure!(check.left.is_empty(), "the kernel still has {:?}", check.left);
    match expected {
        Expected::Told(words) => says(check, 0, words).map(|()| "as it is".to_owned()),
        Expected::InKernel => {
            says(check, 0, &[])?;
            ensure!(!check.said.contains(PAUSE), "{}", check.said);
            recorded(check).map(|samples| format!("in the kernel, {samples}"))
        }
        Expected::Instead(why) => {
            says(check, 0, why)?;
            says(check, 0, &[PAUSE])?;
            recorded(check).map(|samples| format!("pause, {samples}"))
        }
        Expected::Refused(why) => {
            says(check, 1, why)?;
            says(check, 1, &["error: ", "try: "])?;
            ensure!(check.said.lines().count() <= 8, "too much is said: {}", check.said);
            Ok("says why not".to_owned())
        }
        Expected::Killed(held) => {
            ensure!(check.exit == -9 && check.held == held, "{} programs: {}", check.held, check.said);
            Ok("nothing stays".to_owned())
        }
    }
}

fn says(check: &Check, exit: i32, words: &[&str]) -> Result<()> {
    ensure!(check.exit == exit, "exit status {}: {}", check.exit, check.said);
    match words.iter().find(|word| !check.said.contains(**word)) {
        Some(missing) => bail!("{missing:?} is not said: {}", check.said),
        None => Ok(()),
    }
}

/// How much was recorded, if all of it can be.
fn recorded(check: &Check) -> Result<String> {
    let profile = Collapsed::parse(&check.raw)?;
    ensure!(profile.ledger.is_some() && !profile.stacks.is_empty(), "nothing was recorded: {}", check.said);
    for stack in &profile.stacks {
        possible(&stack.frames)?;
    }
    Ok(format!("{} stacks", profile.stacks.len()))
}

/// Whether a stack of one of the two fixtures can be.
fn possible(frames: &[Frame]) -> Result<()> {
    let leaf = frames.iter().rfind(|frame| frame.line.is_some());
    // What stands on no Python at all says so.
    let Some(leaf) = leaf else {
        let lost = |frame: &Frame| frame.function.starts_with('<') || frame.function.starts_with('[');
        ensure!(frames.iter().all(lost), "no stack: {frames:?}");
        return Ok(());
    };
    if frames.iter().any(|frame| frame.file.as_deref() == Some("waiting.py")) {
        let (_, reason) = PLACES
            .iter()
            .find(|(place, _)| *place == leaf.plain_name())
            .with_context(|| format!("torn: {frames:?}"))?;
        let shown = frames.iter().find(|frame| frame.function.starts_with("<waiting"));
        ensure!(shown.is_none_or(|shown| shown.function == *reason), "not {reason}: {frames:?}");
        return Ok(());
    }
    labyrinth::judge(frames).map(|_| ()).with_context(|| format!("torn: {frames:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "<ledger: 2 samples> 0\n";

    fn check(name: &str, exit: i32, said: &str, raw: &str) -> Check {
        Check { check: name.to_owned(), exit, said: said.to_owned(), raw: raw.to_owned(), ..Check::default() }
    }

    fn outcome(check: &Check, version: (u32, u32)) -> Verdict {
        judge(check, expected(&check.check, version).unwrap())
    }

    #[test]
    fn what_an_old_kernel_has_to_do_is_not_what_a_new_one_has_to() {
        let raw =
            format!("<module> (waiting.py:9);Waiting.sleeps (waiting.py:63);<waiting: sleep> 5\n{LEDGER}");
        let exact = check("wall", 0, "sampler: bpf, inside the kernel", &raw);
        let said =
            format!("sampler: pause, ...; not bpf, as the kernel {OLD_SWITCHES} than Linux 5.19 and later");
        let asking = check("wall", 0, &said, &raw);
        assert!(outcome(&exact, (6, 1)).is_ok() && outcome(&exact, (5, 10)).is_err());
        assert!(outcome(&asking, (5, 10)).is_ok() && outcome(&asking, (6, 1)).is_err());
    }

    #[test]
    fn torn_stacks_and_none_are_wrong() {
        let around = "<module> (l.py:9);main (l.py:8);Walk.run (l.py:7);drive_plain (l.py:5)";
        let whole =
            format!("{around};n0_from_outside_at_0 (maze.py:4);n2_from_0_at_4 (maze.py:13) 1\n{LEDGER}");
        let torn =
            format!("{around};n0_from_outside_at_0 (maze.py:3);n2_from_0_at_4 (maze.py:13) 1\n{LEDGER}");
        for (raw, is_right) in [(whole.as_str(), true), (&torn, false), (LEDGER, false), ("", false)] {
            assert_eq!(outcome(&check("bpf", 0, "", raw), (6, 1)).is_ok(), is_right, "{raw}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_what_to_try() {
        let refused = |said| outcome(&check("confidentiality", 1, said, ""), (6, 1));
        assert!(refused("error: the kernel is locked down for confidentiality\n  try: another").is_ok());
        assert!(refused("error: the kernel is locked down for confidentiality").is_err());
        assert!(refused("error: unknown func bpf_probe_read#4\n  try: another").is_err());
    }

    #[test]
    fn nothing_may_stay() {
        let killed = Check { held: 1, ..check("kill", -9, "", "") };
        assert!(outcome(&killed, (6, 1)).is_ok());
        assert!(outcome(&Check { left: vec![7], ..killed.clone() }, (6, 1)).is_err());
        assert!(outcome(&Check { held: 0, ..killed }, (6, 1)).is_err());
    }
}
