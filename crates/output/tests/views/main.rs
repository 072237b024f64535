//! What the views write, against golden files. To accept what they write now, run these tests with
//! `INSTA_UPDATE=always` and read the difference before it is committed.

#![allow(clippy::unwrap_used, reason = "a test that panics has said what it has to say")]

mod dumps;
mod profiles;
mod schema;
mod stacks;
mod timelines;
