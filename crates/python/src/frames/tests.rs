//! Walking made-up stacks of every family of versions. Real ones are in `tests/replay.rs`.

use profiler_memory::{Field, Snapshot};

use super::*;
use crate::{Version, offsets_for, parse_debug_offsets};

const CFRAME: u64 = 0x11_0000;
const FRAMES: u64 = 0x20_0000;
const FRAME_DISTANCE: u64 = 0x100;
const CODE: u64 = 0x40_0000;

/// Owners, as every version from 3.11 on numbers them.
const OF_THREAD: u8 = 0;
const OF_GENERATOR: u8 = 1;
const OF_FRAME_OBJECT: u8 = 2;
const OF_INTERPRETER: u8 = 3;
const OF_C_STACK: u8 = 4;

fn table(minor: u8) -> Offsets {
    offsets_for(Version { major: 3, minor, micro: 1, release: 0xF0 }).unwrap()
}

fn described(bytes: &[u8]) -> Offsets {
    parse_debug_offsets(bytes).unwrap()
}

fn python_3_14() -> Offsets {
    described(include_bytes!("../../tests/data/debug-offsets/3.14.10.bin"))
}

fn python_3_14_free_threaded() -> Offsets {
    described(include_bytes!("../../tests/data/debug-offsets/3.14.10t.bin"))
}

fn python_3_15() -> Offsets {
    described(include_bytes!("../../tests/data/debug-offsets/3.15.2.bin"))
}

/// A thread with one frame for each owner, leaf first, at [`place`], each running the code at [`code`].
struct Stack {
    offsets: Offsets,
    memory: Snapshot,
    thread: Vec<u8>,
}

fn place(index: usize) -> u64 {
    FRAMES + index as u64 * FRAME_DISTANCE
}

fn code(index: usize) -> u64 {
    CODE + index as u64 * 0x1000
}

impl Stack {
    fn new(offsets: Offsets, owners: &[u8]) -> Self {
        let mut memory = Snapshot::new();
        memory.insert(RemoteAddr::new(FRAMES), &vec![0; (owners.len() + 1) * FRAME_DISTANCE as usize]);
        memory.insert(RemoteAddr::new(CFRAME), &[0; 64]);
        let thread = vec![0; offsets.thread.size as usize];
        let mut stack = Stack { offsets, memory, thread };
        stack.start_at(place(0));
        for (index, owner) in owners.iter().enumerate() {
            stack.set(index, stack.offsets.frame.code.offset(), &code(index).to_le_bytes());
            let caller = if index + 1 < owners.len() { place(index + 1) } else { 0 };
            stack.set_caller(index, caller);
            if let Some(field) = stack.offsets.frame.owner {
                stack.set(index, field.offset(), &[*owner]);
            }
        }
        stack
    }

    fn set(&mut self, index: usize, offset: u32, bytes: &[u8]) {
        self.memory.overwrite(RemoteAddr::new(place(index)).offset(offset.into()), bytes);
    }

    fn set_caller(&mut self, index: usize, caller: u64) {
        self.set(index, self.offsets.frame.previous.offset(), &caller.to_le_bytes());
    }

    fn set_in_thread(&mut self, field: Field<RemoteAddr>, value: u64) {
        let at = field.offset() as usize;
        self.thread[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn start_at(&mut self, frame: u64) {
        let target = match self.offsets.thread.cframe_current_frame {
            Some(current) => {
                let at = RemoteAddr::new(CFRAME).offset(current.offset().into());
                self.memory.overwrite(at, &frame.to_le_bytes());
                CFRAME
            }
            None => frame,
        };
        self.set_in_thread(self.offsets.thread.frame, target);
    }

    fn walk(&self) -> Result<RawStack, WalkError> {
        self.walk_through(&mut PageCopy::with_page_bytes(STACK_PAGE_BYTES))
    }

    fn walk_through(&self, pages: &mut PageCopy) -> Result<RawStack, WalkError> {
        let mut stack = RawStack::default();
        let memory = self.memory.with_whole_pages();
        stack.walk(&memory, pages, &Callers::default(), &self.offsets, &self.thread)?;
        Ok(stack)
    }

    fn is_executed(&self) -> bool {
        let mut pages = PageCopy::with_page_bytes(STACK_PAGE_BYTES);
        let stack = self.walk_through(&mut pages).unwrap();
        stack.is_executed(&self.memory.with_whole_pages(), &mut pages, &self.offsets).unwrap()
    }

    /// Which frames there are, each with its entry mark.
    fn frames(&self) -> Result<Vec<(usize, bool)>, WalkError> {
        let index = |frame: &RawFrame| ((frame.code.as_u64() - CODE) / 0x1000) as usize;
        Ok(self.walk()?.frames.iter().map(|frame| (index(frame), frame.is_entry)).collect())
    }
}

#[test]
fn frame_objects_are_all_called_by_c() {
    for minor in 6..=10 {
        let stack = Stack::new(table(minor), &[OF_THREAD; 3]);
        assert_eq!(stack.frames().unwrap(), [(0, true), (1, true), (2, true)]);
    }
}

#[test]
fn in_3_11_the_frame_says_who_called_it() {
    let mut stack = Stack::new(table(11), &[OF_THREAD, OF_GENERATOR, OF_THREAD, OF_THREAD]);
    let mark = stack.offsets.frame.is_entry.unwrap().offset();
    stack.set(1, mark, &[1]);
    assert_eq!(stack.frames().unwrap(), [(0, false), (1, true), (2, false), (3, true)]);
}

#[test]
fn later_a_shim_below_the_frame_says_it() {
    for (offsets, shim) in
        [(table(12), OF_INTERPRETER), (python_3_14(), OF_INTERPRETER), (python_3_14(), OF_C_STACK)]
    {
        let owners = [OF_THREAD, OF_THREAD, shim, OF_GENERATOR, OF_THREAD, shim];
        let stack = Stack::new(offsets, &owners);
        assert_eq!(stack.frames().unwrap(), [(0, false), (1, true), (3, false), (4, true)]);
    }
}

#[test]
fn the_base_frame_of_3_15_is_the_root() {
    let mut stack = Stack::new(python_3_15(), &[OF_THREAD, OF_INTERPRETER, OF_THREAD, OF_INTERPRETER]);
    let base = stack.offsets.thread.base_frame.unwrap();
    stack.set_in_thread(base, place(3));
    assert_eq!(stack.frames().unwrap(), [(0, true), (2, true)]);
    // A thread that runs nothing stands at its base.
    stack.start_at(place(3));
    assert_eq!(stack.frames(), Ok(vec![]));
    // Frames that end elsewhere are not the whole stack.
    stack.start_at(place(0));
    stack.set_in_thread(base, place(4));
    assert_eq!(stack.frames(), Err(WalkError::Unrooted));
}

#[test]
fn frame_objects_of_callers_and_roots_are_marked_as_executed() {
    for minor in 6..=10 {
        let mut stack = Stack::new(table(minor), &[OF_THREAD; 3]);
        let executing = stack.offsets.frame.executing.unwrap();
        let mut of_marks = |marks: [bool; 3]| {
            for (index, mark) in marks.into_iter().enumerate() {
                let value = if mark { executing.value } else { executing.value - 1 };
                stack.set(index, executing.mark.offset(), &value.to_le_bytes());
            }
            stack.is_executed()
        };
        // The leaf is marked a moment after it was entered.
        assert_eq!([[true; 3], [false, true, true]].map(&mut of_marks), [true; 2], "3.{minor}");
        assert_eq!([[true, false, true], [true, true, false]].map(&mut of_marks), [false; 2], "3.{minor}");

        let mut alone = Stack::new(table(minor), &[OF_GENERATOR]);
        alone.set(0, executing.mark.offset(), &executing.value.to_le_bytes());
        assert!(alone.is_executed());
        alone.set(0, executing.mark.offset(), &(executing.value - 1).to_le_bytes());
        assert!(!alone.is_executed(), "a generator of 3.{minor} that was just left");
    }
    assert!(Stack::new(table(11), &[OF_THREAD; 2]).is_executed());
}

/// What 3.11 has of the opcodes that a generator can be at.
const RESUME: u8 = 151;
const SUSPENDED: [u8; 3] = [75, 83, 86];

#[test]
fn in_3_11_a_generator_that_is_not_suspended_is_a_root() {
    const INSTRUCTION: u64 = 0x50_0000;
    // Alone on the stack, or with what it has called.
    for owners in [&[OF_GENERATOR][..], &[OF_THREAD, OF_GENERATOR]] {
        let root = owners.len() - 1;
        let mut stack = Stack::new(table(11), owners);
        stack.set(root, stack.offsets.frame.instruction, &INSTRUCTION.to_le_bytes());
        stack.memory.insert(RemoteAddr::new(INSTRUCTION), &[RESUME]);
        assert_eq!(stack.frames().unwrap().last(), Some(&(root, true)));
        for opcode in SUSPENDED {
            stack.memory.overwrite(RemoteAddr::new(INSTRUCTION), &[opcode]);
            assert_eq!(stack.frames(), Err(WalkError::Unrooted), "{opcode}");
        }
    }
}

#[test]
fn later_a_frame_without_a_shim_is_a_root_only_if_it_is_of_a_compiled_function() {
    for offsets in [table(12), python_3_14()] {
        let start = code(1) + u64::from(offsets.code.bytecode.unwrap());
        let of = |owner: u8, instruction: u64| {
            let mut stack = Stack::new(offsets.clone(), &[OF_THREAD, owner]);
            stack.set(1, stack.offsets.frame.instruction, &instruction.to_le_bytes());
            stack
        };
        let in_frame_object = |mut stack: Stack| {
            stack.memory.overwrite(RemoteAddr::new(place(1) - 40), &place(1).to_le_bytes());
            stack.frames().map(|frames| frames.len())
        };
        let entered = of(OF_GENERATOR, start).frames();
        assert_eq!(entered, Err(WalkError::Unrooted), "a generator that has no caller yet");
        let of = |owner, instruction| in_frame_object(of(owner, instruction));
        assert_eq!([of(OF_GENERATOR, start), of(OF_GENERATOR, start + 2)], [Ok(2), Ok(2)]);
        assert_eq!(of(OF_FRAME_OBJECT, start + 40), Ok(2));
        assert_eq!(of(OF_GENERATOR, start + 8), Err(WalkError::Unrooted));
        assert_eq!(of(OF_THREAD, start), Err(WalkError::Unrooted));
    }
}

#[test]
fn tags_of_references_are_no_part_of_the_address() {
    for (offsets, tag) in [(python_3_14(), 1), (python_3_14(), 3), (python_3_14_free_threaded(), 1)] {
        let mut stack = Stack::new(offsets, &[OF_THREAD, OF_INTERPRETER]);
        stack.set(0, stack.offsets.frame.code.offset(), &(code(0) | tag).to_le_bytes());
        assert_eq!(stack.frames().unwrap(), [(0, true)]);
    }
    let mut stack = Stack::new(table(12), &[OF_THREAD, OF_INTERPRETER]);
    stack.set(0, stack.offsets.frame.code.offset(), &(code(0) | 1).to_le_bytes());
    assert_eq!(stack.frames(), Err(WalkError::BadPointer(RemoteAddr::new(code(0) | 1))));
}

#[test]
fn a_thread_without_frames_has_an_empty_stack() {
    for minor in 6..=12 {
        let mut stack = Stack::new(table(minor), &[OF_THREAD]);
        stack.start_at(0);
        assert_eq!(stack.frames(), Ok(vec![]));
        stack.set_in_thread(stack.offsets.thread.frame, 0);
        assert_eq!(stack.frames(), Ok(vec![]));
    }
}

#[test]
fn circles_and_bad_pointers_are_no_stacks() {
    for length in 1..40 {
        for target in 0..length {
            let mut stack = Stack::new(table(8), &vec![OF_THREAD; length]);
            stack.set_caller(length - 1, place(target));
            assert_eq!(stack.frames(), Err(WalkError::Circle), "{length} frames to {target}");
        }
    }
    let mut stack = Stack::new(table(12), &[OF_INTERPRETER; 4]);
    stack.set_caller(3, place(0));
    assert_eq!(stack.frames(), Err(WalkError::Circle));
    stack.set_caller(3, place(0) + 4);
    assert_eq!(stack.frames(), Err(WalkError::BadPointer(RemoteAddr::new(place(0) + 4))));
    stack.set_caller(3, 0x66_0000);
    assert!(matches!(stack.frames(), Err(WalkError::Read(ReadError::Unmapped(_)))));
}

#[test]
fn a_deep_stack_is_cut_at_its_root() {
    let deep = Stack::new(table(12), &vec![OF_THREAD; MAX_FRAMES + 10]).walk().unwrap();
    assert!(deep.truncated);
    assert_eq!(deep.frames.len(), MAX_FRAMES);
    assert_eq!(deep.frames[0].code, RemoteAddr::new(code(0)));
    assert!(!deep.frames[MAX_FRAMES - 1].is_entry, "what called it is not known");
}

#[test]
fn offsets_are_counted_as_the_version_counts() {
    let memory = Snapshot::new();
    let offset = |offsets: &Offsets, instruction: u64| {
        let frame = RawFrame { code: RemoteAddr::new(CODE), instruction, bytecode_copy: 0, is_entry: false };
        frame.instruction_offset(&memory, offsets).unwrap()
    };
    let before_start = -1i64 as u64;
    assert_eq!([offset(&table(9), 6), offset(&table(9), before_start)], [Some(6), None]);
    assert_eq!([offset(&table(10), 6), offset(&table(10), before_start)], [Some(12), None]);
    for offsets in [table(11), table(12), python_3_14()] {
        let start = CODE + u64::from(offsets.code.bytecode.unwrap());
        assert_eq!([offset(&offsets, start + 6), offset(&offsets, start - 2)], [Some(6), None]);
        assert_eq!(offset(&offsets, start + (1 << 33)), None);
    }
}

#[test]
fn threads_that_run_a_copy_of_the_bytecode_are_at_its_offsets() {
    const COPIES: u64 = 0x50_0000;
    const COPY: u64 = 0x60_0000;
    let mut stack = Stack::new(python_3_14_free_threaded(), &[OF_THREAD, OF_INTERPRETER]);
    let (frame, bytecode_copies) = (stack.offsets.frame, stack.offsets.code.bytecode_copies.unwrap());
    stack.set(0, frame.instruction, &(COPY + 10).to_le_bytes());
    stack.set(0, frame.bytecode_copy.unwrap().offset(), &1i32.to_le_bytes());
    let pointer = RemoteAddr::new(code(0)).offset(bytecode_copies.offset().into());
    stack.memory.insert(pointer, &COPIES.to_le_bytes());
    let array = [2, CODE, COPY].map(u64::to_le_bytes).concat();
    stack.memory.insert(RemoteAddr::new(COPIES), &array);
    let mut raw = stack.walk().unwrap().frames[0];
    assert_eq!(raw.instruction_offset(&stack.memory, &stack.offsets), Ok(Some(10)));
    raw.bytecode_copy = 2;
    assert!(raw.instruction_offset(&stack.memory, &stack.offsets).is_err());
}
