//! What lies behind an error of the kernel's, in one line: aya's own errors keep the reason to themselves, or tell it with
//! all that the verifier has written.

use std::error::Error;
use std::fmt::{self, Write};

/// More errors than this do not lie behind each other.
const MAX_CAUSES: usize = 8;

/// What stands before what the verifier has written.
const LOG: &str = " Verifier output: ";

/// What the verifier ends with, whatever it found.
const LOG_END: [&str; 3] = ["processed ", "verification time ", "stack depth "];

/// An error with all that lies behind it.
#[derive(Debug)]
pub(crate) struct ErrorChain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        let all = std::iter::successors(Some(self.0), |error| (*error).source()).take(MAX_CAUSES);
        for cause in all.map(|error| one_line(&error.to_string())) {
            // Some tell their cause themselves.
            if !told.contains(&cause) {
                let separator = if told.is_empty() { "" } else { ": " };
                write!(told, "{separator}{cause}")?;
            }
        }
        f.write_str(&told)
    }
}

/// Of what the verifier has written only its last word: what it did not like.
fn one_line(text: &str) -> String {
    let (what, log) = text.split_once(LOG).unwrap_or((text, ""));
    let what = what.lines().next().unwrap_or_default().trim_end_matches('.');
    let mut words = log.lines().map(str::trim).filter(|line| !line.is_empty());
    match words.rfind(|line| !LOG_END.iter().any(|end| line.starts_with(end))) {
        Some(complaint) => format!("{what}: {complaint}"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::EbpfError;
    use aya::maps::MapError;

    use super::*;

    #[test]
    fn a_map_that_cannot_be_made_says_why() {
        let io_error = io::Error::from_raw_os_error(libc::EMFILE);
        let error = EbpfError::MapError(MapError::CreateError { name: "ring".to_owned(), io_error });
        let told = ErrorChain(&error).to_string();
        assert!(told.contains("`ring`") && told.ends_with("Too many open files (os error 24)"), "{told}");
    }

    #[test]
    fn of_the_verifiers_log_its_last_word_is_told() {
        let refused = |log: &str| {
            one_line(&format!("the call returned Permission denied (os error 13). Verifier output: {log}"))
        };
        let told = refused("0: R1=ctx()\ninvalid access to map value\nprocessed 7 insns (limit 1000000)\n");
        assert!(
            told.contains("Permission denied") && told.ends_with(": invalid access to map value"),
            "{told}"
        );
        assert!(!told.contains('\n') && !told.contains("R1"), "{told}");
        assert!(refused("processed 7 insns\n").ends_with("(os error 13)"));
    }
}
