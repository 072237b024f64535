//! Busy loops that share one CPU, or all of them, with a program under test, so that it has to wait for it.

use std::ffi::OsString;
use std::process::{Child, Command};

use anyhow::Result;

/// The CPU that all share.
const SHARED_CPU: &str = "0";

/// A loop that ends by itself, should the test be killed.
const LOOP: &str = "ulimit -t 60; while :; do :; done";

/// Busy loops, until this is dropped.
#[derive(Debug)]
pub struct Competitors(Vec<Child>);

impl Competitors {
    /// Starts so many.
    pub fn start(number: usize) -> Result<Self> {
        Competitors::of(number, &["taskset", "-c", SHARED_CPU])
    }

    /// Starts so many, on whatever CPUs there are.
    pub fn anywhere(number: usize) -> Result<Self> {
        Competitors::of(number, &[])
    }

    fn of(number: usize, place: &[&str]) -> Result<Self> {
        let words: Vec<&str> = place.iter().copied().chain(["sh", "-c", LOOP]).collect();
        let mut all = Competitors(Vec::new());
        for _ in 0..number {
            all.0.push(Command::new(words[0]).args(&words[1..]).spawn()?);
        }
        Ok(all)
    }

    /// The words of a command that runs beside them; anywhere if there are none.
    pub fn beside(&self, words: Vec<OsString>) -> Vec<OsString> {
        let place: &[&str] = if self.0.is_empty() { &[] } else { &["taskset", "-c", SHARED_CPU] };
        place.iter().map(Into::into).chain(words).collect()
    }
}

impl Drop for Competitors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
