//! Decompression with a limit on the size of the result: zlib and zstd for sections, xz for `.gnu_debugdata`.

use std::io::Read;

use xz4rust::{XzDecoder, XzNextBlockResult};

/// The largest window of a zstd frame; `zstd -19`, which packagers use, has 8 MiB.
const MAX_ZSTD_WINDOW_BYTES: u64 = 32 << 20;

/// The largest dictionary of an xz stream; `xz -9` has 64 MiB.
const MAX_XZ_DICTIONARY_BYTES: usize = 64 << 20;

/// The dictionary that an xz stream begins with; the decoder enlarges it when the stream says so.
const FIRST_XZ_DICTIONARY_BYTES: usize = 64 << 10;

/// How many bytes the xz decoder gives at a time.
const XZ_STEP_BYTES: usize = 64 << 10;

/// Inflates zlib data. `None` if it is damaged or larger than `limit` bytes.
pub(super) fn zlib(data: &[u8], limit: usize) -> Option<Vec<u8>> {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(data, limit).ok()
}

/// Decompresses one zstd frame. `None` if it is damaged or larger than `limit` bytes.
pub(super) fn zstd(data: &[u8], limit: usize) -> Option<Vec<u8>> {
    let decoder =
        ruzstd::decoding::StreamingDecoder::new_with_max_window_size(data, MAX_ZSTD_WINDOW_BYTES).ok()?;
    let mut bytes = Vec::new();
    decoder.take(limit as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= limit).then_some(bytes)
}

/// Decompresses one xz stream. `None` if it is damaged or larger than `limit` bytes.
pub(super) fn xz(data: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut decoder =
        XzDecoder::in_heap_with_alloc_dict_size(FIRST_XZ_DICTIONARY_BYTES, MAX_XZ_DICTIONARY_BYTES);
    let (mut rest, mut bytes, mut step) = (data, Vec::new(), vec![0; XZ_STEP_BYTES]);
    loop {
        let (consumed, produced, is_end) = match decoder.decode(rest, &mut step).ok()? {
            XzNextBlockResult::NeedMoreData(consumed, produced) => (consumed, produced, false),
            XzNextBlockResult::EndOfStream(consumed, produced) => (consumed, produced, true),
        };
        bytes.extend_from_slice(step.get(..produced)?);
        if bytes.len() > limit || (!is_end && consumed == 0 && produced == 0) {
            return None;
        }
        if is_end {
            return Some(bytes);
        }
        rest = rest.get(consumed..)?;
    }
}
