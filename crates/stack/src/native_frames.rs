//! Native frames: each address of each module gets one frame, which is named later.

use std::sync::Arc;

use profiler_model::{Frame, FrameKind, ModuleNumber, RemoteAddr};
use rustc_hash::FxHashMap;

use crate::capture::{CodeLocation, NativeStack};
use crate::stack_resolver::truncation_mark;

/// Gives native frames the ids that their owner chooses.
///
/// A frame is identified by its module and its address in that: two processes with the same library share frames. It has no name: reading
/// symbols takes long, and is done once per address, at the latest when a view is drawn.
#[derive(Debug)]
pub struct NativeFrames<Id> {
    ids: FxHashMap<CodeLocation, Id>,
    mark: Option<Id>,
}

impl<Id> Default for NativeFrames<Id> {
    fn default() -> Self {
        NativeFrames { ids: FxHashMap::default(), mark: None }
    }
}

impl<Id: Copy> NativeFrames<Id> {
    /// The ids of a stack's frames, root first. `path` is the path of a module, `intern` gives a frame that is met for the first time
    /// its id.
    pub fn root_first(
        &mut self,
        stack: &NativeStack,
        path: &mut dyn FnMut(ModuleNumber) -> Arc<str>,
        intern: &mut dyn FnMut(&Frame) -> Id,
    ) -> Vec<Id> {
        let mut ids = Vec::with_capacity(stack.frames.len() + usize::from(stack.is_truncated));
        if stack.is_truncated {
            ids.push(*self.mark.get_or_insert_with(|| intern(&truncation_mark())));
        }
        for frame in stack.frames.iter().rev() {
            let id =
                self.ids.entry(*frame).or_insert_with(|| intern(&unnamed(path(frame.module), frame.offset)));
            ids.push(*id);
        }
        ids
    }

    /// Forgets the ids of all frames.
    pub fn forget_ids(&mut self) {
        self.ids.clear();
        self.mark = None;
    }
}

/// A native frame that has no name yet.
fn unnamed(path: Arc<str>, offset: u64) -> Frame {
    Frame {
        kind: FrameKind::Native,
        module: Some(path),
        address: Some(RemoteAddr::new(offset)),
        ..Frame::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_module_is_described_once() {
        let frame = |module, offset| CodeLocation { module: ModuleNumber::new(module), offset };
        let stack = NativeStack { frames: vec![frame(1, 0x20), frame(0, 0x10)], is_truncated: true };
        let mut described = Vec::new();
        let mut frames = NativeFrames::default();
        for _ in 0..2 {
            let ids = frames.root_first(
                &stack,
                &mut |module| format!("/lib/{}.so", module.as_u32()).into(),
                &mut |frame| {
                    described.push(frame.clone());
                    described.len()
                },
            );
            assert_eq!(ids, [1, 2, 3]);
        }
        let places: Vec<_> = described.iter().map(|frame| (frame.module.as_deref(), frame.address)).collect();
        let at = |offset| Some(RemoteAddr::new(offset));
        assert_eq!(places, [(None, None), (Some("/lib/0.so"), at(0x10)), (Some("/lib/1.so"), at(0x20))]);
    }
}
