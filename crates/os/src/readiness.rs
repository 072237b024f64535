//! Waiting until a descriptor has something to say.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use profiler_model::Timestamp;

use crate::clock;

/// Instants that never come are waited for in parts: the kernel takes no more than signed seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Waits until one of `descriptors` can be read, `until` comes (an hour at most) or a signal arrives; returns whether one can be read.
pub fn wait_until(descriptors: &[BorrowedFd<'_>], until: Timestamp) -> bool {
    let rest = Duration::from(until.since(clock::now())).min(LONGEST_WAIT);
    let mut polled: Vec<_> =
        descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
    ppoll(&mut polled, Some(TimeSpec::from(rest)), None).is_ok_and(|ready| ready > 0)
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
