//! A function of the kernel.

/// A function of the kernel, as the kernel writes it in lists of functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFunction {
    /// Its name.
    pub name: String,
    /// The module that it came with; `None` for the kernel itself.
    pub module: Option<String>,
}
