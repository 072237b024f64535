//! The live view: [`State`] folds what the sampling side hands over and what the user does, `view` draws it,
//! `screen` keeps the terminal whole, and [`run`] goes round. Taking samples and writing files is the business
//! of `cli`.
#![forbid(unsafe_code)]

mod input;
mod live;
mod screen;
mod state;
mod update;
mod view;

pub use live::{TopHost, run};
pub use state::{
    Action, Column, Cost, Effect, HelpEntry, Measure, Meter, Place, Rows, SaveRequest, Settings, Sort, Span,
    State, Tab, TreeRow, ViewMode,
};
pub use update::{Feed, Update};
