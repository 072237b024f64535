//! NumPy's scalars and arrays. Their layout is part of NumPy's ABI, and the same in all of its versions that
//! are in use.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::number_text;

/// The most dimensions of an array: 32 in NumPy 1, 64 in NumPy 2.
const MAX_DIMENSIONS: u64 = 64;

/// A type of scalar: what its content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    /// Of so many bytes.
    Signed(usize),
    Unsigned(usize),
    Float(usize),
    Complex(usize),
}

impl Scalar {
    /// By the name of the type without its module.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "bool" | "bool_" => Scalar::Bool,
            "int8" => Scalar::Signed(1),
            "int16" => Scalar::Signed(2),
            "int32" | "intc" => Scalar::Signed(4),
            "int64" | "longlong" | "int_" => Scalar::Signed(8),
            "uint8" => Scalar::Unsigned(1),
            "uint16" => Scalar::Unsigned(2),
            "uint32" | "uintc" => Scalar::Unsigned(4),
            "uint64" | "ulonglong" | "uint" => Scalar::Unsigned(8),
            "float16" => Scalar::Float(2),
            "float32" => Scalar::Float(4),
            "float64" => Scalar::Float(8),
            "complex64" => Scalar::Complex(4),
            "complex128" => Scalar::Complex(8),
            _ => return None,
        })
    }

    /// What the scalar is that has its content at `at`.
    pub(crate) fn read(self, memory: &impl ReadMemory, at: RemoteAddr) -> Result<String, ReadError> {
        let bits = |at: RemoteAddr, width: usize| -> Result<u64, ReadError> {
            let mut bytes = [0; 8];
            memory.read(at, &mut bytes[..width])?;
            Ok(u64::from_le_bytes(bytes))
        };
        let float = |at: RemoteAddr, width: usize| -> Result<f64, ReadError> {
            Ok(match width {
                4 => f64::from(f32::from_bits(bits(at, 4)? as u32)),
                _ => f64::from_bits(bits(at, 8)?),
            })
        };
        Ok(match self {
            Scalar::Bool => if bits(at, 1)? == 0 { "False" } else { "True" }.to_owned(),
            Scalar::Signed(width) => {
                let unused = 64 - 8 * width as u32;
                ((bits(at, width)? << unused) as i64 >> unused).to_string()
            }
            Scalar::Unsigned(width) => bits(at, width)?.to_string(),
            Scalar::Float(2) => number_text::single(number_text::half(bits(at, 2)? as u16)),
            Scalar::Float(4) => number_text::single(f32::from_bits(bits(at, 4)? as u32)),
            Scalar::Float(width) => number_text::float(float(at, width)?),
            Scalar::Complex(width) => {
                number_text::complex(float(at, width)?, float(at.offset(width as u64), width)?)
            }
        })
    }
}

/// The shape of the array whose fields begin at `body`, and the type object of its items.
pub(crate) fn array(
    memory: &impl ReadMemory,
    body: RemoteAddr,
    object_body: u64,
) -> Result<(Vec<u64>, RemoteAddr), ReadError> {
    // The data, the number of dimensions, the dimensions, the strides, the base, the descriptor.
    let count_at = body.offset(8);
    let count = u64::from(memory.scalar::<u32>(count_at)?);
    if count > MAX_DIMENSIONS {
        return Err(ReadError::TooLong { at: count_at, length: count, limit: MAX_DIMENSIONS });
    }
    let dimensions: RemoteAddr = memory.scalar(body.offset(16))?;
    let bytes = memory.bytes(dimensions, count * 8, MAX_DIMENSIONS as usize * 8)?;
    let shape = bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let descriptor: RemoteAddr = memory.scalar(body.offset(40))?;
    Ok((shape, memory.scalar(descriptor.offset(object_body))?))
}
