//! Guesses which frames stand below a frame, to read them together with it.

use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use super::RawStack;

/// The most calls that are remembered. Where frames are objects of their own (to 3.10), each function keeps one
/// for its next call, so this is about the number of functions that are worth remembering.
const MAX_REMEMBERED_CALLERS: usize = 65_536;

/// The most frames that are fetched at once.
const MAX_FRAMES_AHEAD: usize = 128;

/// Remembers which frame called which, to read a whole chain of them at once. Only a guess: what is read is
/// walked all the same.
#[derive(Debug, Default)]
pub struct Callers {
    of: FxHashMap<RemoteAddr, RemoteAddr>,
}

impl Callers {
    /// Learns the calls of a stack.
    pub fn learn(&mut self, stack: &RawStack) {
        if self.of.len() > MAX_REMEMBERED_CALLERS {
            self.of.clear();
        }
        self.of.extend(stack.calls());
    }

    /// The frames that probably stand below `frame`, and itself.
    pub(super) fn chain(&self, frame: RemoteAddr) -> impl Iterator<Item = RemoteAddr> {
        std::iter::successors(Some(frame), |callee| self.of.get(callee).copied()).take(MAX_FRAMES_AHEAD)
    }
}
