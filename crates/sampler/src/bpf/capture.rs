//! What the in-kernel program sends of stacks and code objects, as the values of crate `stack`.

use std::num::NonZeroU64;

use profiler_bpf::{NamesRecord, Outcome, StackRecord, head_hash};
use profiler_memory::{CopiedPages, ReadMemory};
use profiler_model::{LossReason, RemoteAddr};
use profiler_python::{CodeHead, CopiedFrame, Offsets, RawStack};
use profiler_stack::{CodeSource, HashedEvidence, KernelStack, SentNames};

/// The names of a code object; `None` if they do not have the hash that they were sent with.
pub fn sent_names(offsets: &Offsets, record: &NamesRecord<'_>) -> Option<SentNames> {
    let (code, memory) = (record.code(), CopiedPages::new());
    record.pieces().for_each(|(at, bytes)| memory.put(at, bytes));
    let head = CodeHead::read(&memory, offsets, code).ok()?;
    let hash = NonZeroU64::new(record.head_hash())?;
    (head_hash(head.as_bytes()) == hash.get()).then_some(SentNames { code, head, hash, memory })
}

/// The code objects of a stack whose hashes came with it.
pub fn sent_hashes(record: &StackRecord<'_>) -> impl Iterator<Item = (RemoteAddr, NonZeroU64)> {
    record.frames().filter_map(|frame| Some((frame.code, frame.head_hash?)))
}

/// Makes `evidence` that of the stack of a record.
pub fn read_evidence(record: &StackRecord<'_>, evidence: &mut HashedEvidence) {
    evidence.proof = record.proof();
    evidence.hashes.clear();
    // Shims have no code object and are no frames of the stack.
    let frames = record.frames().filter(|frame| !frame.code.is_null());
    evidence.hashes.extend(frames.map(|frame| frame.head_hash));
}

/// The stack of a record, walked.
///
/// # Errors
/// When the program could not take it, or what it sent is no stack.
pub fn raw_stack<M: ReadMemory>(
    record: &StackRecord<'_>,
    source: CodeSource<'_, M>,
) -> Result<RawStack, LossReason> {
    match record.outcome() {
        Outcome::Whole | Outcome::Truncated => {}
        Outcome::UnknownThread | Outcome::NoPython => return Err(LossReason::UnknownThread),
        Outcome::ChangedThread => return Err(LossReason::ThreadEnded),
        Outcome::Unreadable => return Err(LossReason::Unreadable),
    }
    let truncated = record.outcome() == Outcome::Truncated;
    let frames = record.frames().map(|frame| CopiedFrame {
        place: frame.address,
        code: frame.code,
        instruction: frame.instruction,
        bytecode_copy: frame.bytecode_copy,
        owner: frame.owner,
        is_entry: frame.is_entry,
    });
    let CodeSource { memory, offsets } = source;
    RawStack::of_copies(memory, offsets, record.thread_copy(), frames, record.end(), truncated)
        .map_err(|_| LossReason::Invalid)
}

/// What the thread of a record did in the kernel.
pub fn kernel_stack(record: &StackRecord<'_>) -> KernelStack {
    KernelStack::Counters {
        counters: record.kernel_frames().collect(),
        is_leaving: record.is_of_leaving(),
        is_missing: record.lacks_kernel_frames(),
    }
}
