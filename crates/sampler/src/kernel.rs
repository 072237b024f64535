//! Stacks that the in-kernel program takes: what it has to be told of a target, and how what it sends becomes
//! the same stacks and names as any other memory.
//!
//! The program copies frames as they lie in memory; they are walked here, by the same walker as everywhere.

use profiler_bpf::{BpfError, KernelSampler, Layout, NO_OFFSET, NamesRecord, Outcome, Record, StackRecord};
use profiler_bpf::{ThreadEntry, head_hash};
use profiler_memory::{CopiedPages, Field, Nothing, PageCopy, ReadError, Scalar};
use profiler_model::{Frame, LossReason, Nanos, RemoteAddr, Tid, Timestamp};
use profiler_os::clock;
use profiler_python::{Callers, CodeHead, GilAddresses, Offsets, RawStack, STACK_PAGE_BYTES, WalkError};
use profiler_stack::{Describe, Resolver};
use rustc_hash::FxHashMap;

use crate::Target;
use crate::roster::Roster;

/// Code objects whose names were sent and not resolved yet, at most: beyond this they are sent again.
const MAX_UNUSED_NAMES: usize = 16_384;

/// What the kernel said of one instant of one thread.
#[derive(Debug)]
pub struct KernelStack {
    /// The thread.
    pub thread: Tid,
    /// The instant.
    pub at: Timestamp,
    /// The frames, root first, or why they are lost.
    pub frames: Result<Vec<Frame>, LossReason>,
    /// Whether frames are missing at the root.
    pub truncated: bool,
    /// How long the program took.
    pub took: Nanos,
}

/// Takes the stacks of a target's threads in the kernel.
#[derive(Debug)]
pub struct KernelProbe {
    target: Target,
    kernel: KernelSampler,
    names: FxHashMap<RemoteAddr, Names>,
    resolver: Resolver<usize>,
    frames: Vec<Frame>,
    pages: PageCopy,
}

/// The names of a code object as they were sent.
#[derive(Debug)]
struct Names {
    hash: u64,
    head: CodeHead,
    memory: CopiedPages,
}

impl KernelProbe {
    /// Has every thread of `target` sampled each time it has used so much CPU time.
    ///
    /// # Errors
    /// When the kernel does not take the program, or the runtime cannot be read.
    pub fn attach(target: Target, period: Nanos) -> Result<Self, KernelError> {
        let mut kernel = KernelSampler::load(clock::cpus())?;
        let mut roster = Roster::default();
        roster.refresh(target.process(), target.memory(), target.runtime(), clock::now())?;
        let gil = roster.interpreters.iter().find_map(|interpreter| interpreter.gil);
        kernel.set_layout(target.pid(), &layout(target.offsets(), gil.as_ref()))?;
        for thread in &roster.threads {
            let python = &thread.python;
            let entry = ThreadEntry {
                state: python.address.as_u64(),
                interpreter: python.interpreter.as_u64(),
                thread_id: python.pthread_id,
            };
            kernel.set_thread(thread.tid, &entry)?;
            kernel.attach(thread.tid, period)?;
        }
        Ok(KernelProbe {
            target,
            kernel,
            names: FxHashMap::default(),
            resolver: Resolver::new(),
            frames: Vec::new(),
            pages: PageCopy::with_page_bytes(STACK_PAGE_BYTES),
        })
    }

    /// What the kernel has sent since the last time.
    pub fn read(&mut self) -> Vec<KernelStack> {
        let (mut raw, mut found) = (Vec::new(), Vec::new());
        let offsets = self.target.offsets().clone();
        let (names, pages) = (&mut self.names, &mut self.pages);
        self.kernel.read(&mut |record| match record {
            Record::Stack(stack) => {
                raw.push((
                    Tid::new(stack.thread()),
                    stack.time(),
                    Nanos::from_nanos(stack.took().into()),
                    raw_stack(&stack, &offsets, pages),
                    identities(&stack, names),
                ));
            }
            Record::Names(sent) => keep(&sent, &offsets, names),
        });
        for (thread, at, took, stack, heads) in raw {
            let truncated = stack.as_ref().is_ok_and(|stack| stack.truncated);
            let frames = stack.and_then(|stack| self.name(&offsets, &stack, &heads));
            found.push(KernelStack { thread, at, frames, truncated, took });
        }
        found
    }

    /// The frames of a stack, root first.
    fn name(
        &mut self,
        offsets: &Offsets,
        stack: &RawStack,
        heads: &FxHashMap<RemoteAddr, CodeHead>,
    ) -> Result<Vec<Frame>, LossReason> {
        let mut named = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.iter().rev() {
            let head = heads.get(&frame.code).ok_or(LossReason::CodeChanged)?;
            let typed = self.resolver.learn_type(self.target.memory(), offsets, frame.code);
            typed.map_err(|_| LossReason::CodeChanged)?;
            let known = &mut self.frames;
            let mut describe = Describe {
                shorten: &mut std::sync::Arc::clone,
                intern: &mut |frame| {
                    known.push(frame.clone());
                    known.len() - 1
                },
            };
            let memory = self.names.get(&frame.code).map(|names| &names.memory);
            let memory = memory.ok_or(LossReason::CodeChanged)?;
            let id = self.resolver.resolve(memory, offsets, frame, head, &mut describe);
            named.extend(id.map_err(|_| LossReason::CodeChanged)?.map(|id| self.frames[id].clone()));
        }
        Ok(named)
    }
}

/// Why stacks cannot be taken in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] BpfError),
    /// The target cannot be read.
    #[error(transparent)]
    Target(#[from] ReadError),
}

fn keep(sent: &NamesRecord<'_>, offsets: &Offsets, names: &mut FxHashMap<RemoteAddr, Names>) {
    if names.len() >= MAX_UNUSED_NAMES {
        names.clear();
    }
    let memory = CopiedPages::new();
    sent.pieces().for_each(|(at, bytes)| memory.put(at, bytes));
    if let Ok(head) = CodeHead::read(&memory, offsets, sent.code())
        && head_hash(head.as_bytes()) == sent.head_hash()
    {
        names.insert(sent.code(), Names { hash: sent.head_hash(), head, memory });
    }
}

/// The heads of the code objects of a stack, as far as their names are there.
fn identities(
    stack: &StackRecord<'_>,
    names: &FxHashMap<RemoteAddr, Names>,
) -> FxHashMap<RemoteAddr, CodeHead> {
    let frames = stack.frames().filter(|frame| !frame.code.is_null());
    let known = frames.filter_map(|frame| {
        let names = names.get(&frame.code).filter(|names| names.hash == frame.head_hash)?;
        Some((frame.code, names.head))
    });
    known.collect()
}

/// The stack of a record, walked.
fn raw_stack(
    record: &StackRecord<'_>,
    offsets: &Offsets,
    pages: &mut PageCopy,
) -> Result<RawStack, LossReason> {
    match record.outcome() {
        Outcome::Whole | Outcome::Truncated => {}
        Outcome::UnknownThread | Outcome::ChangedThread => return Err(LossReason::ThreadEnded),
        Outcome::Unreadable => return Err(LossReason::Unreadable),
    }
    pages.clear();
    let size = (offsets.frame.size as usize).min(record.frames().next().map_or(0, |one| one.bytes.len()));
    record.frames().for_each(|frame| pages.put(frame.address, &frame.bytes[..size]));
    if let Some((at, leaf)) = record.leaf_pointer() {
        pages.put(at, &leaf.as_u64().to_le_bytes());
    }
    let mut stack = RawStack::default();
    match stack.walk(&Nothing, pages, &Callers::default(), offsets, record.thread_copy()) {
        Ok(()) => Ok(stack),
        // The walk in the kernel ended here.
        Err(WalkError::Read(_)) if record.outcome() == Outcome::Truncated => {
            stack.truncated = true;
            Ok(stack)
        }
        Err(_) => Err(LossReason::Invalid),
    }
}

/// What the program has to know of a CPython.
fn layout(offsets: &Offsets, gil: Option<&GilAddresses>) -> Layout {
    let Offsets { thread, frame, code, .. } = offsets;
    let head = CodeHead::range(offsets);
    let place = |address: Option<RemoteAddr>| address.map_or(0, RemoteAddr::as_u64);
    Layout {
        thread_size: thread.size,
        thread_interpreter: thread.interpreter.offset(),
        thread_id: thread.thread_id.offset(),
        thread_frame: thread.frame.offset(),
        cframe_current_frame: optional(thread.cframe_current_frame),
        thread_base_frame: optional(thread.base_frame),
        frame_size: frame.size,
        frame_previous: frame.previous.offset(),
        frame_code: frame.code.offset(),
        frame_owner: optional(frame.owner),
        shim_owners: frame.shim_owners.iter().fold(0, |owners, owner| owners | 1 << (owner & 31)),
        head_start: head.start,
        head_length: head.end - head.start,
        code_name: code.name.offset(),
        code_qualname: optional(code.qualname),
        code_filename: code.filename.offset(),
        code_line_table: code.line_table.offset(),
        bytes_length: offsets.bytes.length.offset(),
        code_mask: !((1u64 << frame.code_tag_bits) - 1),
        gil_last_holder: place(gil.map(|gil| gil.last_holder)),
        gil_locked: place(gil.map(|gil| gil.locked)),
        freed_codes: place(gil.and_then(|gil| gil.freed_codes)),
        ..Layout::default()
    }
}

fn optional<T: Scalar>(field: Option<Field<T>>) -> u32 {
    field.map_or(NO_OFFSET, Field::offset)
}
