//! Collapsed stacks (`-f raw`): one line for each distinct stack, root first, as py-spy writes them.
//!
//! `<module> (app.py:3);main (app.py:12) 57`: frames apart by `;`, then a space and the weight: the number of
//! samples, or nanoseconds. The layout has no place for the ledger, and readers take every line for a stack;
//! so the last line is a stack of weight 0 whose only frame, `<ledger: ...>`, says what was lost.

use std::io::{self, Write};

use profiler_profile::Profile;

use crate::tree::Tree;
use crate::{Format, OutputError, ViewOptions, escape, summary};

/// Collapsed stacks.
#[derive(Clone, Copy, Debug)]
pub struct Collapsed;

impl Format for Collapsed {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["txt", "folded", "collapsed", "raw"]
    }

    fn write_view(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError> {
        let everything = 0;
        Tree::new(profile, options)
            .visit(everything, |stack, weight| -> io::Result<()> { writeln!(out, "{stack} {weight}") })?;
        let ledger = format!("<ledger: {}>", summary(profile.ledger()).replace(';', ","));
        writeln!(out, "{} 0", escape::frame(&ledger))?;
        Ok(())
    }
}
