//! Ids of processes, threads and interpreters, each a type of its own.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// An id from its numeric value.
            pub const fn new(value: u32) -> Self {
                $name(value)
            }

            /// The numeric value.
            pub const fn as_u32(self) -> u32 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A process id in the profiler's own PID namespace.
    Pid
);
id!(
    /// A kernel thread id in the profiler's own PID namespace.
    Tid
);
id!(
    /// A kernel thread id as the target sees it: the id in its innermost PID namespace, which is what
    /// CPython stores as `native_thread_id`.
    NsTid
);
id!(
    /// The number of a module of native code among those of its process, for as long as that is sampled.
    ModuleNumber
);
id!(
    /// A process-wide running number of a CPython interpreter (`PyInterpreterState.id`).
    InterpreterId
);

/// A thread of a process that is being profiled: what distinguishes one thread's samples from another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadKey {
    /// The process.
    pub pid: Pid,
    /// The kernel thread.
    pub tid: Tid,
}
