//! The resolver on stored processes: an answer is kept for as long as the code object is the same, and never
//! longer.

use std::sync::Arc;

use profiler_memory::{Field, ReadMemory};
use profiler_model::{Frame, RemoteAddr};
use profiler_python::{CodeError, CodeHead, RawFrame};
use profiler_stack::{Describe, Resolver};

use crate::case::{Case, Ended, cases};

impl Case {
    /// Resolves a frame, whose description is kept in `met` if it is a new one.
    fn resolve(
        &self,
        resolver: &mut Resolver<usize>,
        memory: &impl ReadMemory,
        frame: &RawFrame,
        head: &CodeHead,
        met: &mut Vec<Frame>,
    ) -> Result<Option<usize>, CodeError> {
        let mut describe = Describe {
            shorten: &mut Arc::clone,
            intern: &mut |frame| {
                met.push(frame.clone());
                met.len() - 1
            },
        };
        resolver.resolve(memory, &self.offsets, frame, head, &mut describe)
    }
}

#[test]
fn what_was_met_is_known_without_reading() {
    for case in cases() {
        let (mut resolver, mut met) = (Resolver::new(), Vec::new());
        let first: Vec<_> = case
            .stack
            .frames
            .iter()
            .map(|frame| case.resolve(&mut resolver, &case.memory, frame, &case.head(frame), &mut met))
            .collect();
        assert!(first.iter().all(Result::is_ok), "{}: {first:?}", case.id);
        let count = met.len();
        for (frame, id) in case.stack.frames.iter().zip(&first) {
            let again = case.resolve(&mut resolver, &Ended, frame, &case.head(frame), &mut met);
            assert_eq!(again, *id, "{}", case.id);
        }
        assert_eq!(met.len(), count, "{}: frames are described twice", case.id);
        // Some sixty calls of one function on one line are one frame.
        assert!(count < case.stack.frames.len() / 2, "{}: {count} descriptions", case.id);
    }
}

#[test]
fn the_cleanup_of_a_specialised_call_is_no_frame() {
    for case in cases() {
        let (mut resolver, mut met) = (Resolver::new(), Vec::new());
        let shims = case.stack.frames.iter().filter(|frame| {
            let head = case.head(frame);
            case.resolve(&mut resolver, &case.memory, frame, &head, &mut met).expect("a frame").is_none()
        });
        let expected = usize::from(case.offsets.version.minor >= 13);
        assert_eq!(shims.count(), expected, "{}", case.id);
    }
}

#[test]
fn an_address_that_is_another_code_object_by_now_has_no_name() {
    for case in cases() {
        let frame = case.stack.frames[0];
        let captured = case.head(&frame);
        let changed = case.with_replaced_code(&frame, 77);
        let (mut resolver, mut met) = (Resolver::new(), Vec::new());
        let gone = case.resolve(&mut resolver, &changed, &frame, &captured, &mut met);
        assert_eq!(gone, Err(CodeError::Changed(frame.code)), "{}", case.id);
        // Captured as it is now, it is resolved, and does not answer for what it was.
        let now = CodeHead::read(&changed, &case.offsets, frame.code).expect("the head");
        let id = case.resolve(&mut resolver, &changed, &frame, &now, &mut met).expect("a frame");
        assert_eq!(met[id.expect("a function")].first_line, Some(77), "{}", case.id);
        let old = case.resolve(&mut resolver, &changed, &frame, &captured, &mut met);
        assert_eq!(old, Err(CodeError::Changed(frame.code)), "{}", case.id);
    }
}

#[test]
fn what_is_no_code_object_has_no_name() {
    for case in cases() {
        let frame = case.stack.frames[0];
        let name: Field<RemoteAddr> = case.offsets.code.name;
        let string = case.memory.field(frame.code, name).expect("the name");
        let no_code = RawFrame { code: string, ..frame };
        let mut memory = case.memory.clone();
        // All that a code object would have there can be read.
        memory.insert(string, &[0; 1024]);
        let head = CodeHead::read(&memory, &case.offsets, string).expect("bytes");
        let (mut resolver, mut met) = (Resolver::new(), Vec::new());
        case.resolve(&mut resolver, &memory, &frame, &case.head(&frame), &mut met).expect("a frame");
        let no_name = case.resolve(&mut resolver, &memory, &no_code, &head, &mut met);
        assert_eq!(no_name, Err(CodeError::NotCode(string)), "{}", case.id);
    }
}
