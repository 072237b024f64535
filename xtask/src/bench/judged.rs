//! Reads the stacks that a profiler has written of the labyrinth, and judges them.

use anyhow::{Context, Result};
use profiler_tests::labyrinth::judge;
use profiler_tests::{Collapsed, Frame};

/// How many samples a recording has, and how many of them are torn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// All samples.
    pub samples: u64,
    /// Those of stacks that cannot exist.
    pub torn: u64,
    /// Why the first torn stack cannot exist.
    pub example: Option<String>,
}

impl Verdict {
    /// Of collapsed stacks as py-spy and we write them: `name (file:line);... COUNT`.
    pub fn of_collapsed(text: &str) -> Result<Self> {
        let mut verdict = Verdict::default();
        for stack in Collapsed::parse(text)?.stacks {
            verdict.count(&stack.frames, stack.count);
        }
        Ok(verdict)
    }

    /// Of collapsed stacks as CPython's sampler writes them: `tid:N;file:name:line;... COUNT`.
    pub fn of_cpythons(text: &str) -> Result<Self> {
        let mut verdict = Verdict::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
            let frames = stack.split(';').filter(|text| !text.starts_with("tid:")).map(cpythons_frame);
            verdict.count(&frames.collect::<Vec<_>>(), count.parse()?);
        }
        Ok(verdict)
    }

    /// Adds another recording.
    pub fn add(&mut self, other: Verdict) {
        self.samples += other.samples;
        self.torn += other.torn;
        self.example = self.example.take().or(other.example);
    }

    /// `0 of 12034`, or with the share and an example where any is torn.
    pub fn shown(&self) -> String {
        let counts = format!("{} of {}", self.torn, self.samples);
        match self.torn {
            0 => counts,
            torn => format!("{:.2} % ({counts})", 100.0 * torn as f64 / self.samples as f64),
        }
    }

    fn count(&mut self, frames: &[Frame], samples: u64) {
        self.samples += samples;
        if let Err(torn) = judge(frames) {
            self.torn += samples;
            self.example.get_or_insert_with(|| torn.to_string());
        }
    }
}

/// `file:name:line`; marks such as `<GC>` have neither file nor line, or `~` and 0.
fn cpythons_frame(text: &str) -> Frame {
    let parts = text.rsplit_once(':').and_then(|(rest, line)| {
        let (file, function) = rest.split_once(':')?;
        Some((file, function, line.parse().ok().filter(|line| *line > 0)?))
    });
    match parts {
        Some((file, function, line)) => {
            Frame { function: function.to_owned(), file: Some(file.to_owned()), line: Some(line) }
        }
        None => Frame { function: text.to_owned(), file: None, line: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: &str = "tid:7;l.py:<module>:9;l.py:main:8;l.py:Walk.run:7;l.py:drive_plain:5";

    #[test]
    fn cpythons_stacks_are_judged_like_ours() {
        let right = format!("{AROUND};maze.py:n0_from_outside_at_0:4;maze.py:n2_from_0_at_4:13;~:<GC>:0 3");
        let torn = format!("{AROUND};maze.py:n0_from_outside_at_0:3;maze.py:n2_from_0_at_4:13 2");
        let verdict = Verdict::of_cpythons(&format!("{right}\n{torn}\n")).unwrap();
        assert_eq!((verdict.samples, verdict.torn), (5, 2));
        assert_eq!(verdict.shown(), "40.00 % (2 of 5)");

        let ours = "<module> (l.py:9);main (l.py:8);Walk.run (l.py:7);drive_plain (l.py:5);\
                    n0_from_outside_at_0 (maze.py:4) 8";
        assert_eq!(Verdict::of_collapsed(ours).unwrap().shown(), "0 of 8");
    }
}
