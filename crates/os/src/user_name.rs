//! Users by number and name.

use nix::unistd::{Uid, User};

/// A user, as people know one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName {
    /// The number.
    pub uid: u32,
    /// The name, where the number has one here.
    pub name: Option<String>,
}

impl UserName {
    /// Who we are.
    pub fn own() -> UserName {
        UserName::of(Uid::effective().as_raw())
    }

    /// The user of this number.
    pub fn of(uid: u32) -> UserName {
        UserName { uid, name: User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name) }
    }
}

impl std::fmt::Display for UserName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}
