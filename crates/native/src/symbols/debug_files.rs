//! Debug information in files of its own: which ones a module asks for, where they may be, and whether a file is the right one.

use super::elf_image::{ElfImage, check_limit};
use super::problem::{DebugFileRefusal, SymbolProblem};
use super::read_at::ReadAt;

/// The largest debug file whose checksum is computed. Larger ones are found by build id.
const MAX_CHECKED_BYTES: u64 = 1 << 30;

/// How many bytes are read at a time for a checksum.
const BYTES_AT_ONCE: usize = 256 << 10;

/// Where distributions install debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// A debug file that a module asks for. Nothing in it is to be trusted: paths are resolved in the target's root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DebugFileRequest {
    /// The file of this build id.
    BuildId(Box<[u8]>),
    /// The file that `.gnu_debuglink` names.
    Link {
        /// Its name, without a folder.
        name: String,
        /// The checksum of its content (CRC-32).
        checksum: u32,
    },
    /// The file that `.gnu_debugaltlink` names: entries that several debug files share, made by `dwz`.
    Shared {
        /// Its path, absolute or relative to the file that names it.
        path: String,
        /// Its build id.
        build_id: Box<[u8]>,
    },
}

impl DebugFileRequest {
    /// The paths at which the file may be, the likeliest first. `module` is the path of the module.
    pub fn paths(&self, module: &str) -> Vec<String> {
        let folder = module.rsplit_once('/').map_or("", |(folder, _)| folder);
        match self {
            DebugFileRequest::BuildId(id) => build_id_path(id).into_iter().collect(),
            DebugFileRequest::Link { name, .. } => vec![
                format!("{folder}/{name}"),
                format!("{folder}/.debug/{name}"),
                format!("{DEBUG_FOLDER}{folder}/{name}"),
            ],
            DebugFileRequest::Shared { path, build_id } => {
                let named = if path.starts_with('/') { path.clone() } else { format!("{folder}/{path}") };
                build_id_path(build_id).into_iter().chain([named]).collect()
            }
        }
    }
}

/// The path of the debug file with this build id (`/usr/lib/debug/.build-id/12/3456.debug`).
fn build_id_path(id: &[u8]) -> Option<String> {
    let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    Some(format!("{DEBUG_FOLDER}/.build-id/{first:02x}/{}.debug", hexadecimal(rest)))
}

/// The bytes as hexadecimal digits.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The debug files that a module asks for, the best first.
pub(super) fn requests_of<F: ReadAt>(module: &ElfImage<F>, has_debug_info: bool) -> Vec<DebugFileRequest> {
    if has_debug_info {
        return shared_request(module).into_iter().collect();
    }
    let by_id = module.build_id().map(DebugFileRequest::BuildId);
    let is_plain = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    let by_link = module.debug_link().filter(|(name, _)| is_plain(name));
    let by_link = by_link.map(|(name, checksum)| DebugFileRequest::Link { name, checksum });
    by_id.into_iter().chain(by_link).collect()
}

/// The file that a file with debug information shares entries with.
pub(super) fn shared_request<F: ReadAt>(image: &ElfImage<F>) -> Option<DebugFileRequest> {
    image.supplementary_link().map(|(path, build_id)| DebugFileRequest::Shared { path, build_id })
}

/// Opens a debug file and checks that it is the one of the module.
pub(super) fn open_checked<F: ReadAt>(
    request: &DebugFileRequest,
    module: &ElfImage<F>,
    file: F,
) -> Result<ElfImage<F>, DebugFileRefusal> {
    let image = ElfImage::open(file).map_err(DebugFileRefusal::Damaged)?;
    match request {
        DebugFileRequest::BuildId(wanted) | DebugFileRequest::Shared { build_id: wanted, .. } => {
            check_build(wanted, image.build_id().as_deref())?;
        }
        DebugFileRequest::Link { checksum, .. } => match (module.build_id(), image.build_id()) {
            (Some(wanted), Some(found)) => check_build(&wanted, Some(&found))?,
            _ => check_checksum(*checksum, image.file())?,
        },
    }
    Ok(image)
}

fn check_build(wanted: &[u8], found: Option<&[u8]>) -> Result<(), DebugFileRefusal> {
    if found == Some(wanted) {
        return Ok(());
    }
    let found = found.map_or_else(|| "none".to_owned(), hexadecimal);
    Err(DebugFileRefusal::OtherBuild { wanted: hexadecimal(wanted), found })
}

fn check_checksum<F: ReadAt>(wanted: u32, file: &F) -> Result<(), DebugFileRefusal> {
    let found = checksum(file).map_err(DebugFileRefusal::Damaged)?;
    if found == wanted { Ok(()) } else { Err(DebugFileRefusal::OtherChecksum { wanted, found }) }
}

/// The checksum of a file's content (CRC-32 as of zlib).
fn checksum<F: ReadAt>(file: &F) -> Result<u32, SymbolProblem> {
    check_limit("bytes of a debug file", file.size(), MAX_CHECKED_BYTES)?;
    let (mut state, mut at, mut bytes) = (u32::MAX, 0, vec![0; BYTES_AT_ONCE]);
    while at < file.size() {
        let now = (file.size() - at).min(BYTES_AT_ONCE as u64);
        let part = &mut bytes[..now as usize];
        if !file.read_at(at, part) {
            return Err(SymbolProblem::Truncated("content"));
        }
        state =
            part.iter().fold(state, |state, byte| CHECKSUMS[usize::from(state as u8 ^ byte)] ^ (state >> 8));
        at += now;
    }
    Ok(!state)
}

/// The checksums of single bytes.
const CHECKSUMS: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_one_of_zlib() {
        assert_eq!(checksum(&b"123456789".to_vec()), Ok(0xcbf4_3926));
        assert_eq!(checksum(&Vec::new()), Ok(0));
    }

    #[test]
    fn debug_files_are_looked_for_where_distributions_put_them() {
        let by_id = DebugFileRequest::BuildId([0x12, 0xab, 0xcd].into());
        assert_eq!(by_id.paths("/usr/lib/libx.so"), ["/usr/lib/debug/.build-id/12/abcd.debug"]);
        let link = DebugFileRequest::Link { name: "libx.debug".to_owned(), checksum: 1 };
        let paths = ["/opt/libx.debug", "/opt/.debug/libx.debug", "/usr/lib/debug/opt/libx.debug"];
        assert_eq!(link.paths("/opt/libx.so"), paths);
        let shared = DebugFileRequest::Shared { path: "../.dwz/x".to_owned(), build_id: [1, 2].into() };
        assert_eq!(shared.paths("/opt/a"), ["/usr/lib/debug/.build-id/01/02.debug", "/opt/../.dwz/x"]);
        assert_eq!(DebugFileRequest::BuildId([1].into()).paths("/a"), [""; 0]);
    }
}
