//! A recording that begins with the launch of its process, or of the root of its tree.

use profiler_account::LaunchTime;
use profiler_model::{LossReason, Pid, Timestamp};
use profiler_profile::{MetricValue, Scope};

use super::driver::Processes;
use crate::event_writer::EventWriter;

/// Has the recording begin with the launch; returns when that was. Of a single process so many samples were `missed` before the
/// first look. Of a tree `instants` have passed; which of its processes has a Python is not known yet, so the processes count what
/// was missed.
pub fn note_launch(
    processes: &mut Processes,
    (root, launch): (Pid, LaunchTime),
    instants: u64,
    missed: u64,
    events: &mut EventWriter<'_>,
) -> Timestamp {
    let at = launch.started;
    if processes.host().tree.is_some() {
        processes.began(root, at, instants);
    } else {
        events.metric(at, MetricValue::BeforePython(launch.time_without_python()));
        events.lose(LossReason::Late, Scope::Session, at, missed);
    }
    at
}
