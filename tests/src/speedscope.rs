//! Reads speedscope files (`record -f speedscope`), as far as the tests need them: every sample with its
//! weight, without the gaps between them.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{Frame, Ledger};

#[derive(Deserialize)]
struct File {
    #[serde(rename = "$schema")]
    schema: String,
    shared: Shared,
    profiles: Vec<Profile>,
}

#[derive(Deserialize)]
struct Shared {
    frames: Vec<SharedFrame>,
}

#[derive(Deserialize)]
struct SharedFrame {
    name: String,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Deserialize)]
struct Profile {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    samples: Vec<Vec<usize>>,
    weights: Vec<f64>,
}

/// The stretches of time without a gap, each with the name of its profile: of samples of whoever holds the GIL,
/// these are its turns.
pub fn uninterrupted(text: &str) -> Result<Vec<(String, f64)>> {
    let file: File = serde_json::from_str(text)?;
    let mut stretches = Vec::new();
    for profile in file.profiles {
        let mut goes_on = false;
        for (sample, weight) in profile.samples.iter().zip(&profile.weights) {
            match (sample.is_empty(), stretches.last_mut()) {
                (true, _) => {}
                (false, Some((_, stretch))) if goes_on => *stretch += weight,
                (false, _) => stretches.push((profile.name.clone(), *weight)),
            }
            goes_on = !sample.is_empty();
        }
    }
    Ok(stretches)
}

/// How many samples a second were really taken, of those asked for: what was lost was not.
pub fn samples_per_second(text: &str, asked: f64) -> Result<f64> {
    let file: serde_json::Value = serde_json::from_str(text)?;
    Ok(asked * Ledger::read(&file["ledger"])?.share_kept())
}

/// One sample of one thread.
#[derive(Clone, Debug)]
pub struct WeightedSample {
    /// The name of the profile (the thread) it belongs to.
    pub profile: String,
    /// The frames, root first.
    pub frames: Vec<Frame>,
    /// What it stands for, in the file's unit.
    pub weight: f64,
}

/// All samples of a file, profile by profile.
pub fn read_speedscope(text: &str) -> Result<Vec<WeightedSample>> {
    let file: File = serde_json::from_str(text)?;
    ensure!(file.schema.contains("speedscope"), "not speedscope's schema: {}", file.schema);
    let mut all = Vec::new();
    for profile in file.profiles {
        ensure!(profile.kind == "sampled", "profile of kind {}", profile.kind);
        ensure!(profile.samples.len() == profile.weights.len(), "samples and weights differ in number");
        // A sample without frames is time of which nothing was shown.
        let shown = profile.samples.iter().zip(profile.weights).filter(|(sample, _)| !sample.is_empty());
        for (sample, weight) in shown {
            let frames = sample.iter().map(|&index| {
                let frame = file.shared.frames.get(index).context("a frame that is not in the table")?;
                // What is not known is empty or 0 there.
                let file = frame.file.clone().filter(|file| !file.is_empty());
                Ok(Frame { function: frame.name.clone(), file, line: frame.line.filter(|line| *line > 0) })
            });
            let frames = frames.collect::<Result<_>>()?;
            all.push(WeightedSample { profile: profile.name.clone(), frames, weight });
        }
    }
    Ok(all)
}
