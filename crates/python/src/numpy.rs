//! NumPy's scalars and arrays. Their layout is part of NumPy's ABI, and the same in all of its versions that
//! are in use.

use profiler_memory::{ReadError, ReadMemory};
use profiler_model::RemoteAddr;

use crate::{number_text, numpy_time};

/// The most dimensions of an array: 32 in NumPy 1, 64 in NumPy 2.
const MAX_DIMENSIONS: u64 = 64;

/// Where a `long double` is in its object: at the next multiple of its alignment.
const LONG_DOUBLE_ALIGNMENT: u64 = 16;

/// Bytes that a `long double` takes.
const LONG_DOUBLE_BYTES: u64 = 16;

/// A type of scalar: what its content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    /// Of so many bytes.
    Signed(usize),
    Unsigned(usize),
    Float(Float),
    Complex(Float),
    Datetime,
    Timedelta,
    Str,
    Bytes,
}

/// A type of real number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Float {
    Half,
    Single,
    Double,
    /// C's `long double`.
    Long,
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
            "float16" => Scalar::Float(Float::Half),
            "float32" => Scalar::Float(Float::Single),
            "float64" => Scalar::Float(Float::Double),
            "longdouble" | "float128" => Scalar::Float(Float::Long),
            "complex64" => Scalar::Complex(Float::Single),
            "complex128" => Scalar::Complex(Float::Double),
            "clongdouble" | "complex256" => Scalar::Complex(Float::Long),
            "datetime64" => Scalar::Datetime,
            "timedelta64" => Scalar::Timedelta,
            "str_" => Scalar::Str,
            "bytes_" => Scalar::Bytes,
            _ => return None,
        })
    }

    /// The name that NumPy 2 writes: two types of integers of the same width have the same one.
    pub(crate) fn name(self) -> String {
        match self {
            Scalar::Bool => "bool".to_owned(),
            Scalar::Signed(width) => format!("int{}", 8 * width),
            Scalar::Unsigned(width) => format!("uint{}", 8 * width),
            Scalar::Float(Float::Long) => "longdouble".to_owned(),
            Scalar::Float(float) => format!("float{}", 8 * float.width()),
            Scalar::Complex(Float::Long) => "clongdouble".to_owned(),
            Scalar::Complex(float) => format!("complex{}", 16 * float.width()),
            Scalar::Datetime => "datetime64".to_owned(),
            Scalar::Timedelta => "timedelta64".to_owned(),
            Scalar::Str => "str_".to_owned(),
            Scalar::Bytes => "bytes_".to_owned(),
        }
    }

    /// The scalar that has its content at `at`, as NumPy 2 writes it; `None` of strings, whose content is that of
    /// Python's.
    pub(crate) fn read(self, memory: &impl ReadMemory, at: RemoteAddr) -> Result<Option<String>, ReadError> {
        let content = match self {
            Scalar::Bool => {
                let is_true = bits(memory, at, 1)? != 0;
                return Ok(Some(if is_true { "np.True_" } else { "np.False_" }.to_owned()));
            }
            Scalar::Signed(width) => {
                let unused = 64 - 8 * width as u32;
                ((bits(memory, at, width)? << unused) as i64 >> unused).to_string()
            }
            Scalar::Unsigned(width) => bits(memory, at, width)?.to_string(),
            Scalar::Float(float) => float.quoted(float.read(memory, float.place(at))?),
            Scalar::Complex(float) => {
                let at = float.place(at);
                let imaginary = at.offset(float.width());
                let (real, imaginary) = (float.read(memory, at)?, float.read(memory, imaginary)?);
                float.quoted(number_text::complex_of(&real, &imaginary))
            }
            Scalar::Datetime => numpy_time::instant(memory, at)?,
            Scalar::Timedelta => numpy_time::duration(memory, at)?,
            Scalar::Str | Scalar::Bytes => return Ok(None),
        };
        Ok(Some(format!("np.{}({content})", self.name())))
    }
}

impl Float {
    fn width(self) -> u64 {
        match self {
            Float::Half => 2,
            Float::Single => 4,
            Float::Double => 8,
            Float::Long => LONG_DOUBLE_BYTES,
        }
    }

    /// Where it is that would begin at `at`, were it not for its alignment.
    fn place(self, at: RemoteAddr) -> RemoteAddr {
        match self {
            Float::Long => RemoteAddr::new(at.as_u64().next_multiple_of(LONG_DOUBLE_ALIGNMENT)),
            _ => at,
        }
    }

    fn read(self, memory: &impl ReadMemory, at: RemoteAddr) -> Result<String, ReadError> {
        Ok(match self {
            Float::Half => number_text::half(bits(memory, at, 2)? as u16),
            Float::Single => number_text::single(f32::from_bits(bits(memory, at, 4)? as u32)),
            Float::Double => number_text::float(f64::from_bits(bits(memory, at, 8)?)),
            Float::Long if cfg!(target_arch = "x86_64") => {
                number_text::extended(bits(memory, at, 8)?, bits(memory, at.offset(8), 2)? as u16)
            }
            // Other machines have other ones.
            Float::Long => "...".to_owned(),
        })
    }

    /// Numbers that Python cannot read back are written in quotes.
    fn quoted(self, content: String) -> String {
        if self == Float::Long { format!("'{content}'") } else { content }
    }
}

fn bits(memory: &impl ReadMemory, at: RemoteAddr, width: usize) -> Result<u64, ReadError> {
    let mut bytes = [0; 8];
    memory.read(at, &mut bytes[..width])?;
    Ok(u64::from_le_bytes(bytes))
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
