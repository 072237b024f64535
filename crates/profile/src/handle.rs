//! Opaque handles into the tables of one profile. They mean nothing in another profile.

use std::num::NonZeroU32;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Stored plus one, so that an `Option` of it takes no more room than it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// The handle of the row at `index` of its table. A table of four billion rows would not fit
            /// into memory long before a handle could not name its last row.
            pub(crate) fn new(index: usize) -> Self {
                let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
                $name(number.expect("a table outgrew its handles"))
            }

            /// The row that the handle stands for: dense from 0, in order of first appearance, so that views
            /// can keep what they know of it in a plain vector.
            pub const fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

handle!(
    /// A frame of a profile.
    FrameId
);
handle!(
    /// A stack of a profile: a frame standing on another stack, or on nothing.
    StackId
);
handle!(
    /// A thread of a profile.
    ThreadId
);
handle!(
    /// A process of a profile.
    ProcessId
);
handle!(
    /// A row of the summed samples. Stays inside this crate.
    TallyId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_remembers_its_row_and_costs_four_bytes() {
        let handle = StackId::new(41);
        assert_eq!(handle.index(), 41);
        assert_eq!(size_of::<Option<StackId>>(), 4);
    }

    #[test]
    #[should_panic(expected = "outgrew its handles")]
    fn a_row_that_no_handle_can_name_is_not_mistaken_for_another() {
        FrameId::new(u32::MAX as usize);
    }
}
