//! Where code objects are read: the memory of a process, and the layout of its Python.

use profiler_python::Offsets;

/// The memory of one runtime of one process, with the offsets that hold there.
#[derive(Debug)]
pub struct CodeSource<'a, M> {
    /// The memory as it is now.
    pub memory: &'a M,
    /// The layout of its structures.
    pub offsets: &'a Offsets,
}

impl<M> Clone for CodeSource<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for CodeSource<'_, M> {}
