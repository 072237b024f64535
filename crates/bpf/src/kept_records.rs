//! Records as they lay in the ring, kept to be replayed in tests.

use crate::records::Record;

/// Records of the in-kernel program, as bytes: each after its length, four bytes in little-endian order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptRecords {
    bytes: Vec<u8>,
    most: usize,
}

impl KeptRecords {
    /// An empty collection, for records of at most `most` bytes in all.
    pub(crate) fn new(most: usize) -> Self {
        KeptRecords { bytes: Vec::new(), most }
    }

    /// Those in these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        KeptRecords { bytes, most: 0 }
    }

    /// Keeps a record, if there is room.
    pub(crate) fn keep(&mut self, record: &[u8]) {
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        if self.bytes.len() + size_of::<u32>() + record.len() <= self.most {
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend(record);
        }
    }

    /// Their bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The records, in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(Record::parse(record))
        })
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_beyond_the_limit_are_not_kept() {
        let mut kept = KeptRecords::new(30);
        kept.keep(&[7; 10]);
        kept.keep(&[8; 30]);
        kept.keep(&[9; 12]);
        assert_eq!(kept.as_bytes().len(), 30);
        assert_eq!(kept.as_bytes()[..5], [10, 0, 0, 0, 7]);
        assert_eq!(kept.iter().count(), 0, "they are no records of the program");
    }
}
