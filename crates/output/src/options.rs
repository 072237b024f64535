//! What a view shows of the frames, and how it weighs samples.

use profiler_profile::Weights;

/// Which line stands beside a function's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lines {
    /// The line that was running: one function may then show as several frames.
    #[default]
    Line,
    /// The line on which the function starts, so that all its samples are one frame.
    FirstLine,
    /// None: functions of one name and file are one frame.
    None,
}

/// What a sample counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// One.
    #[default]
    Samples,
    /// The CPU time it stands for.
    Cpu,
    /// The wall time it stands for.
    Wall,
}

impl Weight {
    /// The weight in samples or nanoseconds.
    pub(crate) fn of(self, weights: &Weights) -> u64 {
        match self {
            Weight::Samples => weights.samples,
            Weight::Cpu => weights.cpu.as_nanos(),
            Weight::Wall => weights.wall.as_nanos(),
        }
    }
}

/// What a view shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewOptions {
    /// Which line numbers.
    pub line_numbers: Lines,
    /// Whole file names, not the part below the package's folder.
    pub full_filenames: bool,
    /// Each thread's stacks stand on a frame that names the thread.
    pub threads: bool,
    /// Each process's stacks stand on frames that name it and the processes that started it.
    pub processes: bool,
    /// With `processes`: those of the same command line, and of the same ancestors, are one.
    pub merge_processes: bool,
    /// What samples count for.
    pub weight: Weight,
    /// What the view is of: the profiled command.
    pub title: String,
}
