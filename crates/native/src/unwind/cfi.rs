//! Reads the call frame information of an ELF image, entry by entry: `.eh_frame` and `.debug_frame`.

use std::borrow::Cow;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EhFrameHdr, EndianSlice,
    FrameDescriptionEntry, LittleEndian, UnwindContext, UnwindSection, UnwindTableRow,
};
use object::read::ReadRef;
use rustc_hash::FxHashMap;

use crate::modules::{ElfImage, Section};

/// The most functions of one section; the largest real programs have a million.
const MAX_ENTRIES: u64 = 1 << 22;

/// The most bytes of a CIE. Its instructions are gone through for each function that refers to it; real ones have some thirty.
const MAX_CIE_BYTES: usize = 256;

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
pub(super) type Row = UnwindTableRow<usize>;

/// What a reader of entries is given, one after the other.
pub(super) trait EntrySink {
    /// A function with unwind information begins, which covers these addresses. Returns whether its rows are wanted.
    fn begin(&mut self, start: u64, end: u64) -> bool;
    /// A row of that function.
    fn row<'a, S: UnwindSection<Bytes<'a>>>(&mut self, section: &S, row: &Row, is_signal_frame: bool);
    /// All rows were given.
    fn end(&mut self);
    /// The entry, or the rest of the section if its length is broken, cannot be read. Rows given before hold.
    fn malformed(&mut self);
    /// No further entries are read.
    fn over_limit(&mut self);
}

/// The unwind information that a program is run with.
pub(super) fn read_eh_frame<'a, R: ReadRef<'a>>(image: &ElfImage<'a, R>, sink: &mut impl EntrySink) {
    let Some(section) = image.section(".eh_frame").or_else(|| by_index(image)) else { return };
    let mut bases = BaseAddresses::default().set_eh_frame(section.address);
    if let Some(text) = image.section(".text") {
        bases = bases.set_text(text.address);
    }
    if let Some(got) = image.section(".got") {
        bases = bases.set_got(got.address);
    }
    let mut frames = EhFrame::new(&section.data, LittleEndian);
    frames.set_address_size(8);
    read(&frames, &bases, sink);
}

/// The unwind information for debuggers.
pub(super) fn read_debug_frame<'a, R: ReadRef<'a>>(image: &ElfImage<'a, R>, sink: &mut impl EntrySink) {
    let Some(section) = image.section(".debug_frame") else { return };
    let mut frames = DebugFrame::new(&section.data, LittleEndian);
    frames.set_address_size(8);
    read(&frames, &BaseAddresses::default(), sink);
}

/// `.eh_frame` of a file without section headers, by its index `.eh_frame_hdr`, which a program header points to.
fn by_index<'a, R: ReadRef<'a>>(image: &ElfImage<'a, R>) -> Option<Section<'a>> {
    let index = image.unwind_index()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(index.address);
    let parsed = EhFrameHdr::new(&index.data, LittleEndian).parse(&bases, 8).ok()?;
    let address = parsed.eh_frame_ptr().direct().ok()?;
    Some(Section { address, data: Cow::Borrowed(image.bytes_from(address)?) })
}

fn read<'a, S: UnwindSection<Bytes<'a>, Offset: std::hash::Hash>>(
    section: &S,
    bases: &BaseAddresses,
    sink: &mut impl EntrySink,
) {
    let mut context = UnwindContext::new();
    let mut shared: FxHashMap<S::Offset, CommonInformationEntry<Bytes<'a>>> = FxHashMap::default();
    let mut entries = section.entries(bases);
    let mut count = 0;
    loop {
        let partial = match entries.next() {
            Ok(Some(CieOrFde::Cie(_))) => continue,
            Ok(Some(CieOrFde::Fde(partial))) => partial,
            Ok(None) => return,
            Err(_) => return sink.malformed(),
        };
        count += 1;
        if count > MAX_ENTRIES {
            return sink.over_limit();
        }
        let entry = partial.parse(|section, bases, offset| match shared.get(&offset) {
            Some(known) => Ok(known.clone()),
            None => {
                let cie = section.cie_from_offset(bases, offset)?;
                if cie.entry_len() > MAX_CIE_BYTES {
                    return Err(gimli::Error::TooManyRegisterRules);
                }
                shared.insert(offset, cie.clone());
                Ok(cie)
            }
        });
        match entry {
            Ok(entry) => read_entry(section, bases, &entry, &mut context, sink),
            Err(_) => sink.malformed(),
        }
    }
}

fn read_entry<'a, S: UnwindSection<Bytes<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    entry: &FrameDescriptionEntry<Bytes<'a>>,
    context: &mut UnwindContext<usize>,
    sink: &mut impl EntrySink,
) {
    if !sink.begin(entry.initial_address(), entry.end_address()) {
        return;
    }
    match entry.rows(section, bases, context) {
        Ok(mut rows) => loop {
            match rows.next_row() {
                Ok(Some(row)) => sink.row(section, row, entry.is_signal_trampoline()),
                Ok(None) => break,
                Err(_) => {
                    sink.malformed();
                    break;
                }
            }
        },
        Err(_) => sink.malformed(),
    }
    sink.end();
}
