//! A CPU that can be taken away from the whole machine for a while; it is back with the end of the test at the latest.

use std::fs;

use anyhow::{Context, Result};

use crate::missing;

/// The last CPU, which is online.
#[derive(Debug)]
pub struct RemovableCpu {
    number: usize,
}

impl RemovableCpu {
    /// `None` where the machine cannot do without it.
    ///
    /// # Panics
    /// When there is none and skipping is forbidden.
    pub fn find() -> Option<Self> {
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let number = online.trim().rsplit(['-', ',']).next().and_then(|last| last.parse().ok()).unwrap_or(0);
        let cpu = RemovableCpu { number };
        // What it is already changes nothing, but needs the rights.
        let is_removable = number > 0 && cpu.set("1").is_ok();
        if !is_removable {
            missing("a CPU that can be taken offline");
            // There is nothing to be put back.
            std::mem::forget(cpu);
            return None;
        }
        Some(cpu)
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Takes it offline.
    pub fn remove(&self) -> Result<()> {
        self.set("0")
    }

    /// Has it back.
    pub fn put_back(&self) -> Result<()> {
        self.set("1")
    }

    fn set(&self, state: &str) -> Result<()> {
        let path = format!("/sys/devices/system/cpu/cpu{}/online", self.number);
        fs::write(&path, state).context(path)
    }
}

impl Drop for RemovableCpu {
    fn drop(&mut self) {
        // It may be there.
        let _ = self.put_back();
    }
}
