//! Names of frames whose code objects are identified by their heads, as `pause` and `peek` copy them
//! ([`CodeEvidence`]).

use profiler_memory::ReadMemory;
use profiler_model::{LossReason, RemoteAddr};
use profiler_python::{CodeHead, RawFrame};

use crate::code_evidence::{CodeEvidence, Identity};
use crate::code_source::CodeSource;
use crate::resolver::{Describe, Resolver};

/// The id of a frame of a stack with this `evidence`; `None` for a frame that is not shown.
///
/// # Errors
/// When the frame has no certain name: its code object was not read, or was replaced.
pub(crate) fn frame_by_head<Id: Copy, M: ReadMemory>(
    codes: &mut Resolver<Id>,
    source: CodeSource<'_, M>,
    evidence: &CodeEvidence,
    frame: &RawFrame,
    describe: &mut Describe<'_, Id>,
) -> Result<Option<Id>, LossReason> {
    let identity = evidence.identity(frame.code).ok_or(LossReason::Unreadable)?;
    if let Some(id) = met(codes, frame, &identity) {
        return Ok(Some(id));
    }
    let head = head_at_instant(codes, source, evidence, frame.code, identity)?;
    let CodeSource { memory, offsets } = source;
    // A known code object is not read again, except for the copy of its bytecode that a thread without a GIL runs.
    let id = match codes.head(frame.code) == Some(&head) {
        true => codes.resolve(memory, offsets, frame, &head, describe),
        false => codes.resolve(evidence.names(), offsets, frame, &head, describe),
    };
    id.map_err(|_| LossReason::CodeChanged)
}

/// The id of a frame that was met before in the same code object.
fn met<Id: Copy>(codes: &Resolver<Id>, frame: &RawFrame, identity: &Identity) -> Option<Id> {
    match identity {
        Identity::Unreplaced => codes.met(frame, None),
        Identity::AtInstant(head) | Identity::Afterwards(head) => codes.met(frame, Some(head)),
        Identity::FirstSeen(_) => None,
    }
}

/// The head that the code object with this `identity` had at the instant of the capture.
fn head_at_instant<Id: Copy, M: ReadMemory>(
    codes: &mut Resolver<Id>,
    source: CodeSource<'_, M>,
    evidence: &CodeEvidence,
    code: RemoteAddr,
    identity: Identity,
) -> Result<CodeHead, LossReason> {
    let known = codes.head(code).copied();
    match (identity, known) {
        (Identity::FirstSeen(head), _) => {
            let CodeSource { memory, offsets } = source;
            codes.learn_type(memory, offsets, code, false).map_err(|_| LossReason::CodeChanged)?;
            codes.check(evidence.names(), offsets, code);
            Ok(head)
        }
        (Identity::AtInstant(head) | Identity::Afterwards(head), Some(known)) if head == known => Ok(head),
        (Identity::Unreplaced, Some(known)) => Ok(known),
        // It was replaced, or its names were dropped from the cache: what it was is not known any more.
        _ => Err(LossReason::CodeChanged),
    }
}
