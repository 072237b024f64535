//! A variable of a frame, with its value as text.

use crate::RemoteAddr;

/// A variable of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where its value is.
    pub address: RemoteAddr,
    /// Whether it is a parameter of the function.
    pub is_argument: bool,
    /// Its value as Python writes it; `None` where that could not be read.
    pub value: Option<String>,
}
