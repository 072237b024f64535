//! The `stat` file of a process or a thread: its state, its parent and when it started.
//!
//! The samplers read it while they sample, so it is parsed here: the crate `procfs` allocates, and converts all of the
//! 52 fields.

use profiler_model::Pid;

/// `PF_EXITING` of Linux: a thread that is ending. Its memory may be gone already.
const ENDING: u64 = 0x4;

/// The fields of a `stat` file that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The letter of the state: R, S, D, T, t, Z, X.
    pub state: u8,
    /// The parent.
    pub parent: Pid,
    /// When it started, in clock ticks since boot: together with the id, this tells a process from a later one
    /// that has the same id.
    pub start_time: u64,
    /// Whether the thread, of a process its first one, is ending or a zombie. It may have no memory any more.
    pub is_ending: bool,
}

impl Stat {
    /// Whether the first thread is ending or has ended. So has the process, unless it has other threads
    /// ([`Process::is_alive`](super::Process::is_alive)).
    pub fn has_ended(&self) -> bool {
        self.is_ending
    }
}

/// The state in a line of `stat`, of which the end may be missing.
pub(super) fn parse_stat_state(text: &[u8]) -> Option<u8> {
    text.get(name_end(text)? + 2).copied()
}

/// A line of `stat`.
pub(super) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let rest = std::str::from_utf8(text.get(name_end(text)? + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?.as_bytes().first()?;
    let flags: u64 = fields.get(6)?.parse().ok()?;
    Some(Stat {
        state,
        is_ending: matches!(state, b'Z' | b'X') || flags & ENDING != 0,
        parent: Pid::new(fields.get(1)?.parse().ok()?),
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Where the name of the command ends. The name, in parentheses, can hold any bytes, closing parentheses as well.
fn name_end(text: &[u8]) -> Option<usize> {
    text.iter().rposition(|byte| *byte == b')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_behind_any_name() {
        let line = b"42 (a) S (b\xff) R 7 42 42 0 -1 4194304 1 0 0 0 1 2 3 4 20 0 1 0 987654 1 2";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), (b'R', Pid::new(7), 987_654));
        assert_eq!((stat.has_ended(), parse_stat_state(line)), (false, Some(b'R')));
    }
}
