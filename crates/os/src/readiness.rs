//! Waiting until a descriptor has something to say.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use profiler_model::Timestamp;

use crate::clock;

/// Waits until one of `descriptors` can be read, `until` comes or a signal arrives; returns whether one can be read.
pub fn wait_until(descriptors: &[BorrowedFd<'_>], until: Timestamp) -> bool {
    let rest = Duration::from(until.since(clock::now()));
    // Rounded up: not to wake, and find that it is too early, again and again.
    let rest = rest.saturating_add(Duration::from_micros(999));
    let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
    let mut polled: Vec<_> =
        descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
    poll(&mut polled, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Write, pipe};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn it_comes_back_when_there_is_something_or_the_time_is_over() {
        let (reader, mut writer) = pipe().unwrap();
        assert!(!wait_until(&[reader.as_fd()], clock::now()));
        writer.write_all(b"x").unwrap();
        assert!(wait_until(&[reader.as_fd()], Timestamp::MAX));
    }
}
