//! Makes small ELF files and unwind information for tests, byte by byte.

/// The size of the ELF header, of a program header, and where the content of a file starts.
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
pub(crate) const CONTENT: u64 = 0x1000;

/// A program header: type, flags, offset in the file, address, size.
pub(crate) type Header = (u32, u32, u64, u64, u64);

pub(crate) const LOAD: u32 = 1;
pub(crate) const NOTE: u32 = 4;
pub(crate) const UNWIND_INDEX: u32 = 0x6474_e550;
pub(crate) const READ: u32 = 4;
pub(crate) const READ_EXECUTE: u32 = 5;

/// An ELF file with these program headers and no sections, and `content` from [`CONTENT`] on.
pub(crate) fn elf(headers: &[Header], content: &[u8]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for number in [3_u16, 62] {
        file.extend(number.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    // Entry, program headers, section headers.
    for number in [0_u64, HEADER_BYTES as u64, 0] {
        file.extend(number.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for number in [HEADER_BYTES, PROGRAM_HEADER_BYTES, headers.len(), 64, 0, 0] {
        file.extend((number as u16).to_le_bytes());
    }
    for (kind, flags, offset, address, size) in headers {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for number in [*offset, *address, *address, *size, *size, 8] {
            file.extend(number.to_le_bytes());
        }
    }
    file.resize(CONTENT as usize, 0);
    file.extend(content);
    file
}

/// Where the code of [`with_frames`] is, in the file's terms, and how many bytes it has.
pub(crate) const CODE: u64 = 0x10_0000;
pub(crate) const CODE_BYTES: u64 = 0x1000;

/// Where `.eh_frame` of [`with_frames`] is: 8 bytes behind its index.
const FRAMES: u64 = CONTENT + 8;

/// An ELF file with [`CODE_BYTES`] of code, zeros behind `code`, and this `.eh_frame`.
pub(crate) fn with_frames_and_code(frames: &[u8], code: &[u8]) -> Vec<u8> {
    // Version 1, the frames as a signed 32-bit distance, no table.
    let mut content = vec![1, 0x1b, 0xff, 0xff, 4, 0, 0, 0];
    content.extend(frames);
    content.resize(content.len().next_multiple_of(0x1000), 0);
    let size = content.len() as u64;
    content.extend(code);
    content.resize(size as usize + CODE_BYTES as usize, 0);
    elf(
        &[
            (LOAD, READ, CONTENT, CONTENT, size),
            (UNWIND_INDEX, READ, CONTENT, CONTENT, 8),
            (LOAD, READ_EXECUTE, CONTENT + size, CODE, CODE_BYTES),
        ],
        &content,
    )
}

/// The same without code.
pub(crate) fn with_frames(frames: &[u8]) -> Vec<u8> {
    with_frames_and_code(frames, &[])
}

/// Unwind information: one CIE and functions.
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    /// Frames whose functions begin behind a call: CFA rsp + 8, the return address just below.
    pub(crate) fn new() -> Self {
        Frames::with_augmentation(b"zR\0")
    }

    /// The same for signal frames.
    pub(crate) fn of_signals() -> Self {
        Frames::with_augmentation(b"zRS\0")
    }

    fn with_augmentation(augmentation: &[u8]) -> Self {
        let mut cie = vec![0, 0, 0, 0, 1];
        cie.extend(augmentation);
        // Code by 1, data by -8, return address 16; addresses as signed 32-bit distances; def_cfa rsp+8; rip at CFA-8.
        cie.extend([1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1]);
        let mut frames = Frames(Vec::new());
        frames.entry(cie);
        frames
    }

    fn entry(&mut self, mut entry: Vec<u8>) {
        entry.resize((entry.len() + 4).next_multiple_of(8) - 4, 0);
        self.0.extend((entry.len() as u32).to_le_bytes());
        self.0.extend(entry);
    }

    /// Adds a function `start` bytes behind [`CODE`].
    pub(crate) fn function(mut self, start: u64, length: u32, instructions: &[u8]) -> Self {
        let at = FRAMES + self.0.len() as u64;
        let mut entry = (self.0.len() as u32 + 4).to_le_bytes().to_vec();
        entry.extend((((CODE + start) as i64 - (at as i64 + 8)) as i32).to_le_bytes());
        entry.extend(length.to_le_bytes());
        entry.push(0);
        entry.extend(instructions);
        self.entry(entry);
        self
    }

    /// The section's bytes.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0.extend([0; 4]);
        self.0
    }
}
