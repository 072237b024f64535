//! Stacks of one process in the dictionary: from what was captured to the id of a stack with names.

use profiler_model::LossReason;
use profiler_os::{Process, ProcessMemory};
use profiler_profile::{Dictionary, FrameId, StackId};
use profiler_python::RawStack;
use profiler_stack::{CodeSource, Describe, StackEvidence, StackResolver};
use profiler_target::{ShortFiles, Target};

/// Gives stacks their names and their place in the dictionary.
#[derive(Debug)]
pub struct StackNames {
    /// What names frames.
    pub resolver: StackResolver<FrameId>,
    short_files: ShortFiles,
}

impl StackNames {
    /// For the stacks of `process`.
    pub fn new(process: Process) -> Self {
        StackNames { resolver: StackResolver::default(), short_files: ShortFiles::new(process) }
    }

    /// The stack of `raw`; `None` if no Python runs.
    ///
    /// # Errors
    /// When a frame has no certain name, see [`StackResolver::resolve`].
    pub fn stack(
        &mut self,
        target: &Target,
        evidence: StackEvidence<'_>,
        raw: &RawStack,
        dictionary: &mut Dictionary,
    ) -> Result<Option<StackId>, LossReason> {
        let StackNames { resolver, short_files } = self;
        let mut describe = Describe {
            shorten: &mut |file| short_files.shorten(file),
            intern: &mut |frame| dictionary.frame(frame),
        };
        let ids = resolver.resolve(code_source(target), evidence, raw, &mut describe)?;
        Ok(dictionary.stack(ids))
    }
}

/// Where the code objects of `target` are read.
fn code_source(target: &Target) -> CodeSource<'_, ProcessMemory> {
    CodeSource { memory: target.memory(), offsets: target.offsets() }
}
