//! By which ids the program tells threads: those of the PID namespace that user space runs in, as `program/ids.h` finds
//! them.

use aya::Ebpf;
use aya::programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun};

use crate::error::BpfError;
use crate::task_layout;
use crate::wire::id_source;

/// What the kernel runs once, for us, to know our namespace.
const FINDER: &str = "find_namespace";

/// A PID namespace other than the first one, as its file (`/proc/self/ns/pid`) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidNamespace {
    /// The device, as the kernel itself numbers it.
    pub device: u64,
    /// The number of the file.
    pub inode: u64,
}

/// How the program finds ids (`enum id_source`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ids {
    /// The kernel's own are ours.
    #[default]
    OfKernel,
    /// The kernel tells those of threads that are in this namespace itself.
    ByHelper(PidNamespace),
    /// They are read from its structures, which have at these offsets what `id_fields` names.
    ByTypes([u32; 5]),
}

impl Ids {
    /// The best way where the kernel has these types.
    pub(crate) fn within(namespace: Option<PidNamespace>, types: Option<&[u8]>) -> Self {
        let Some(namespace) = namespace else { return Ids::OfKernel };
        types.and_then(task_layout::id_fields).map_or(Ids::ByHelper(namespace), Ids::ByTypes)
    }

    /// Whether those of a thread are known that is in another namespace, within ours.
    pub(crate) fn are_known_within(self) -> bool {
        !matches!(self, Ids::ByHelper(_))
    }

    /// The constants `id_source`, `namespace_device`, `namespace_inode` and `id_fields`.
    pub(crate) fn constants(self) -> (u32, u64, u64, [u32; 5]) {
        match self {
            Ids::OfKernel => (id_source::OF_KERNEL, 0, 0, [0; 5]),
            Ids::ByHelper(PidNamespace { device, inode }) => (id_source::BY_HELPER, device, inode, [0; 5]),
            Ids::ByTypes(fields) => (id_source::BY_TYPES, 0, 0, fields),
        }
    }

    /// Has the loaded object know the namespace that we run in, if it has to.
    pub(crate) fn find_namespace(self, ebpf: &mut Ebpf) -> Result<(), BpfError> {
        if !matches!(self, Ids::ByTypes(_)) {
            return Ok(());
        }
        let finder: &mut RawTracePoint =
            ebpf.program_mut(FINDER).ok_or(BpfError::Missing(FINDER))?.try_into()?;
        finder.load()?;
        let found = finder.test_run(RawTracePointRunOptions::new());
        finder.unload()?;
        match found {
            Ok(found) if found.return_value != 0 => Ok(()),
            Ok(_) => Err(BpfError::Namespace("it has none".to_owned())),
            Err(ProgramError::SyscallError(error)) => Err(BpfError::Namespace(error.io_error.to_string())),
            Err(error) => Err(BpfError::Program(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_types_only_the_helper_is_left() {
        let namespace = PidNamespace { device: 4, inode: 4_026_532_000 };
        assert_eq!(Ids::within(None, None), Ids::OfKernel);
        let ids = Ids::within(Some(namespace), None);
        assert_eq!((ids, ids.are_known_within()), (Ids::ByHelper(namespace), false));
        assert_eq!(Ids::within(Some(namespace), Some(b"no types")), ids);
    }
}
