//! How soon memory that is free again goes back to the kernel.

/// Pieces of at least so many bytes are had from the kernel one by one and given back when they are free. It is what
/// glibc begins with; by itself it raises it with each larger piece, up to 32 MB, and keeps twice as much.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Has memory given back as soon as it is free. What is read once at the beginning (the kernel's types, its symbols, the
/// symbols of a Python) takes megabytes, and what comes later does not need as much.
pub fn give_back_early() {
    #[cfg(target_env = "gnu")]
    for setting in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: two numbers that glibc documents; it takes its own locks. Refused, memory is given back later.
        let _ = unsafe { libc::mallopt(setting, LARGE) };
    }
}
