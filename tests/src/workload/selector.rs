//! Which samples a statement is about: a selector of the table, and the lines of the program by their text.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use crate::{Frame, WeightedSample, line_numbers};

/// Everything that is given must hold of a sample. Functions go by their plain names: qualified ones exist
/// from 3.11 on only.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Selector {
    /// The innermost function is one of these.
    leaf: Vec<String>,
    /// All of these are on the stack.
    has: Vec<String>,
    /// One of these is on the stack.
    any: Vec<String>,
    /// None of these is on the stack.
    lacks: Vec<String>,
    /// These stand on top of each other, callers first, somewhere on the stack.
    run: Vec<String>,
    /// These are the innermost frames, callers first, and nothing stands on them.
    ends: Vec<String>,
    /// The innermost frame, or that of `at`, is on a line of the program that reads like one of these.
    lines: Vec<String>,
    /// The innermost frame, or that of `at`, is there and on no line of the program that reads like one of these.
    off_lines: Vec<String>,
    /// The function whose line is meant.
    at: Option<String>,
    /// The innermost frame's file ends so.
    leaf_file: Option<String>,
    /// The thread's name has this in it.
    thread: Option<String>,
}

/// The numbers of a program's lines by their text, looked up once.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    program: String,
    known: RefCell<BTreeMap<String, Vec<u32>>>,
}

impl Lines {
    pub(super) fn of(program: String) -> Self {
        Lines { program, known: RefCell::default() }
    }

    fn numbers(&self, text: &str) -> Result<Vec<u32>> {
        if let Some(numbers) = self.known.borrow().get(text) {
            return Ok(numbers.clone());
        }
        let numbers = line_numbers(&self.program, text)?;
        self.known.borrow_mut().insert(text.to_owned(), numbers.clone());
        Ok(numbers)
    }

    /// Whether a frame is in the program and on a line that reads like one of these.
    fn is_on(&self, frame: &Frame, texts: &[String]) -> Result<bool> {
        let name = self.program.rsplit('/').next().unwrap_or(&self.program);
        let (Some(file), Some(line)) = (&frame.file, frame.line) else { return Ok(false) };
        if !file.ends_with(name) {
            return Ok(false);
        }
        for text in texts {
            if self.numbers(text)?.contains(&line) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Selector {
    /// Whether a sample is meant.
    pub(super) fn selects(&self, sample: &WeightedSample, lines: &Lines) -> Result<bool> {
        let names: Vec<&str> = sample.frames.iter().map(Frame::plain_name).collect();
        let leaf = sample.frames.last();
        let has = |name: &String| names.contains(&name.as_str());
        let stands = |names: &[&str], wanted: &[String]| names.iter().copied().eq(wanted.iter());
        let whole = (self.leaf.is_empty()
            || names.last().is_some_and(|name| self.leaf.iter().any(|l| l == name)))
            && self.has.iter().all(has)
            && (self.any.is_empty() || self.any.iter().any(has))
            && !self.lacks.iter().any(has)
            && (self.run.is_empty() || names.windows(self.run.len()).any(|part| stands(part, &self.run)))
            && (names.len() >= self.ends.len()
                && stands(&names[names.len() - self.ends.len()..], &self.ends))
            && self.leaf_file.as_ref().is_none_or(|end| {
                leaf.and_then(|leaf| leaf.file.as_ref()).is_some_and(|file| file.ends_with(end.as_str()))
            })
            && self.thread.as_ref().is_none_or(|thread| sample.profile.contains(thread.as_str()));
        if !whole || (self.lines.is_empty() && self.off_lines.is_empty()) {
            return Ok(whole);
        }
        let frames: Vec<&Frame> = match &self.at {
            None => leaf.into_iter().collect(),
            Some(at) => sample.frames.iter().filter(|frame| frame.plain_name() == at).collect(),
        };
        let one_is_on = |texts: &[String]| -> Result<bool> {
            let on: Vec<bool> =
                frames.iter().map(|frame| lines.is_on(frame, texts)).collect::<Result<_>>()?;
            Ok(on.contains(&true))
        };
        let is_on = self.lines.is_empty() || one_is_on(&self.lines)?;
        let is_off = self.off_lines.is_empty() || (!frames.is_empty() && !one_is_on(&self.off_lines)?);
        Ok(is_on && is_off)
    }
}
