//! Finds out whether a walk goes round in a circle.

use profiler_model::RemoteAddr;

/// Brent's test: remembers one earlier address, at distances that double.
#[derive(Default)]
pub(super) struct Circle {
    remembered: RemoteAddr,
    steps: usize,
    until: usize,
}

impl Circle {
    /// Whether the walk has been at this address before. A circle may be walked a few times until it is noticed.
    pub fn closes_with(&mut self, address: RemoteAddr) -> bool {
        if address == self.remembered {
            return true;
        }
        if self.steps == self.until {
            self.remembered = address;
            self.until = self.until * 2 + 1;
            self.steps = 0;
        } else {
            self.steps += 1;
        }
        false
    }
}
