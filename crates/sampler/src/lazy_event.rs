//! What is opened when it is first needed, and asked for again while the kernel is not ready for it.

use std::cell::OnceCell;
use std::io;

/// Something that may be opened, once.
#[derive(Debug)]
pub struct LazyEvent<T>(OnceCell<Option<T>>);

impl<T> Default for LazyEvent<T> {
    fn default() -> Self {
        LazyEvent(OnceCell::new())
    }
}

impl<T> LazyEvent<T> {
    /// It, by `open` if it was not tried before. `None` where it cannot be had, or not yet: `open` then says
    /// `WouldBlock`, and is asked again the next time.
    pub fn or_open(&self, open: impl FnOnce() -> io::Result<T>) -> Option<&T> {
        if self.0.get().is_none() {
            match open() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                opened => self.0.get_or_init(|| opened.ok()),
            };
        }
        self.now()
    }

    /// It, if it is open.
    pub fn now(&self) -> Option<&T> {
        self.0.get()?.as_ref()
    }

    /// Whether it was tried to open it.
    pub fn was_tried(&self) -> bool {
        self.0.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_and_not_yet_is_not() {
        let opened = LazyEvent::default();
        assert_eq!(opened.or_open(|| Err(io::ErrorKind::WouldBlock.into())), None);
        assert!(!opened.was_tried());
        assert_eq!(opened.or_open(|| Ok(1)), Some(&1));
        assert_eq!(opened.or_open(|| Ok(2)), Some(&1));
        assert_eq!((opened.now(), opened.was_tried()), (Some(&1), true));
        let refused = LazyEvent::<u8>::default();
        assert_eq!(refused.or_open(|| Err(io::ErrorKind::PermissionDenied.into())), None);
        assert_eq!((refused.or_open(|| Ok(2)), refused.was_tried()), (None, true));
    }
}
