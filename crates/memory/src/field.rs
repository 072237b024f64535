//! A field of a foreign structure: where it lies and, by its type, how wide it is.

use std::fmt;
use std::marker::PhantomData;

use profiler_model::RemoteAddr;

/// A number or address as it lies in little-endian memory.
pub trait Scalar: Copy {
    /// How many bytes it takes: 1 to 8.
    const WIDTH: usize;
    /// The value in the first `WIDTH` of these bytes.
    fn from_le(bytes: [u8; 8]) -> Self;
}

macro_rules! scalar {
    ($($number:ty),*) => {$(
        impl Scalar for $number {
            const WIDTH: usize = size_of::<$number>();
            fn from_le(bytes: [u8; 8]) -> Self {
                u64::from_le_bytes(bytes) as $number
            }
        }
    )*};
}
scalar!(u8, i8, u16, i16, u32, i32, u64, i64);

impl Scalar for RemoteAddr {
    const WIDTH: usize = 8;
    fn from_le(bytes: [u8; 8]) -> Self {
        RemoteAddr::new(u64::from_le_bytes(bytes))
    }
}

/// A field of type `T` at a fixed offset in a structure of the target.
pub struct Field<T> {
    offset: u32,
    scalar: PhantomData<fn() -> T>,
}

impl<T> Field<T> {
    /// A field at `offset` bytes from the start of its structure.
    pub const fn at(offset: u32) -> Self {
        Field { offset, scalar: PhantomData }
    }

    /// The offset in bytes.
    pub const fn offset(self) -> u32 {
        self.offset
    }
}

impl<T: Scalar> Field<T> {
    /// The first byte after the field.
    pub const fn end(self) -> u32 {
        self.offset + T::WIDTH as u32
    }

    /// The field's value in a local copy of its structure, or `None` where the copy is too short.
    pub fn get(self, structure: &[u8]) -> Option<T> {
        let start = self.offset as usize;
        let source = structure.get(start..start.checked_add(T::WIDTH)?)?;
        let mut bytes = [0u8; 8];
        bytes[..T::WIDTH].copy_from_slice(source);
        Some(T::from_le(bytes))
    }
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> PartialEq for Field<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}

impl<T> Eq for Field<T> {}

impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.offset)
    }
}
