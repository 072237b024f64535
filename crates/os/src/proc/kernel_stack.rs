//! The stack of a thread in the kernel, as `/proc/PID/task/TID/stack` lists it. It is read while sampling, and with a limit;
//! the crate `procfs` does not read it.

use std::fs::File;
use std::io::{self, Read};

use profiler_model::KernelFunction;

/// The most that is read of the stack of a thread in the kernel, which writes at most 64 lines of some 50 bytes.
const MAX_KERNEL_STACK_BYTES: u64 = 64 * 1024;

/// The functions that a `stack` file lists, leaf first.
pub(super) fn read_kernel_stack(path: &str) -> io::Result<Vec<KernelFunction>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_KERNEL_STACK_BYTES).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse_kernel_function).collect())
}

/// `[<0>] hrtimer_nanosleep+0x74/0xf0`, or for a module `[<0>] nft_do_chain+0x74/0xf0 [nf_tables]`. An address that has no
/// name is listed as a number.
fn parse_kernel_function(line: &str) -> Option<KernelFunction> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (name, _) = words.next()?.split_once("+0x")?;
    // After the name of a module, some kernels write its build id.
    let module = words.next().and_then(|word| word.strip_prefix('['));
    let module = module.map(|word| word.trim_end_matches(']').to_owned());
    Some(KernelFunction { name: name.to_owned(), module })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_functions_are_parsed_with_their_modules() {
        let found = |line| parse_kernel_function(line).map(|found| (found.name, found.module));
        let named = |name: &str, module: Option<&str>| Some((name.to_owned(), module.map(str::to_owned)));
        assert_eq!(found("[<0>] hrtimer_nanosleep+0x74/0xf0"), named("hrtimer_nanosleep", None));
        assert_eq!(found("[<0>] nft_do+0x74/0xf0 [nf_tables]"), named("nft_do", Some("nf_tables")));
        assert_eq!(found("[<0>] nft_do+0x74/0xf0 [nf_tables 4c41]"), named("nft_do", Some("nf_tables")));
        for line in ["", "[<0>]", "[<0>] 0xffffffffc0100000", "[<ffffffff81000000>] 0xffffffff81000000"] {
            assert_eq!(found(line), None, "{line:?}");
        }
    }
}
