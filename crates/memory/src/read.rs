//! The trait that everything readable implements, and the bounded reads that follow from it.

use profiler_model::RemoteAddr;

use crate::{Field, Scalar};

/// Why memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing is mapped there, or it is not readable.
    #[error("memory at {0} cannot be read")]
    Unmapped(RemoteAddr),
    /// A list leads to an element that does not belong there, or back into itself.
    #[error("a list that leads to {0} is broken there")]
    BrokenList(RemoteAddr),
    /// The process is gone.
    #[error("the process has ended")]
    ProcessEnded,
    /// The operating system refuses to let this process be read.
    #[error("reading the process is not permitted")]
    NotPermitted,
    /// A read did not come back in time, as the kernel waits for a page. Nothing more is read of this process.
    #[error("the memory of the process did not answer")]
    NoAnswer,
    /// A length read from the target is beyond the named limit of its reader.
    #[error("a length of {length} at {at} is beyond the limit of {limit}")]
    TooLong {
        /// Where the length was found.
        at: RemoteAddr,
        /// What it was.
        length: u64,
        /// What it may be.
        limit: u64,
    },
}

/// One piece of a batched read.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    /// Where to read.
    pub at: RemoteAddr,
    /// What to fill; its length is the number of bytes to read.
    pub into: &'a mut [u8],
}

impl<'a> ReadRequest<'a> {
    /// A request to fill `into` from `at`.
    pub fn new(at: RemoteAddr, into: &'a mut [u8]) -> Self {
        ReadRequest { at, into }
    }
}

/// Memory that can be read: of a live process, a core file or a snapshot.
pub trait ReadMemory {
    /// Fills all of `into` with the bytes at `at`.
    ///
    /// # Errors
    /// When any of the bytes cannot be read; `into` then holds nothing of meaning.
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError>;

    /// Fills the requests in order, stopping at the first that cannot be filled completely; returns how
    /// many were filled. A live process does this in as few system calls as possible.
    ///
    /// # Errors
    /// Only when nothing of the process can be read any more (it ended, does not answer, or permission is lacking).
    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        for (done, request) in requests.iter_mut().enumerate() {
            match self.read(request.at, request.into) {
                Ok(()) => {}
                Err(ReadError::Unmapped(_)) => return Ok(done),
                Err(error) => return Err(error),
            }
        }
        Ok(requests.len())
    }

    /// Reads one number or address.
    ///
    /// # Errors
    /// When it cannot be read.
    fn scalar<T: Scalar>(&self, at: RemoteAddr) -> Result<T, ReadError>
    where
        Self: Sized,
    {
        let mut bytes = [0u8; 8];
        self.read(at, &mut bytes[..T::WIDTH])?;
        Ok(T::from_le(bytes))
    }

    /// Reads a field of the structure at `base`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn field<T: Scalar>(&self, base: RemoteAddr, field: Field<T>) -> Result<T, ReadError>
    where
        Self: Sized,
    {
        self.scalar(base.offset(u64::from(field.offset())))
    }

    /// Reads `length` bytes, which may not be more than `limit`: lengths come from the target and are not
    /// to be believed.
    ///
    /// # Errors
    /// [`ReadError::TooLong`] beyond the limit, else as [`ReadMemory::read`].
    fn bytes(&self, at: RemoteAddr, length: u64, limit: usize) -> Result<Vec<u8>, ReadError> {
        match usize::try_from(length) {
            Ok(length) if length <= limit => {
                let mut bytes = vec![0; length];
                self.read(at, &mut bytes)?;
                Ok(bytes)
            }
            _ => Err(ReadError::TooLong { at, length, limit: limit as u64 }),
        }
    }
}

impl<M: ReadMemory> ReadMemory for &M {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        (**self).read(at, into)
    }

    fn read_batch(&self, requests: &mut [ReadRequest<'_>]) -> Result<usize, ReadError> {
        (**self).read_batch(requests)
    }
}
