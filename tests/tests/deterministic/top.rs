//! `top` where there is no terminal, which it says before it looks at its target.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use profiler_tests::streams::shell;
use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Profiler, Terminal, USUAL_SIZE, profiler_path};

/// A process that is there, and no Python: this test.
fn option() -> String {
    format!("--pid {}", std::process::id())
}

fn top_without_terminal_names_alternatives() -> Result<()> {
    let run = Profiler::new("top").words(&option()).fail(&["terminal"])?;
    for word in ["profiler record --pid", "profiler dump --pid"] {
        ensure!(run.stderr.contains(word), "{}", run.stderr);
    }
    Ok(())
}

fn top_on_dumb_terminal_names_alternatives() -> Result<()> {
    let mut words = ["env", "TERM=dumb"].map(OsString::from).to_vec();
    words.extend([profiler_path().into(), "top".into()]);
    words.extend(option().split(' ').map(OsString::from));
    let mut terminal = Terminal::start(&words, USUAL_SIZE)?;
    ensure!(terminal.wait()?.code() == Some(1), "{}", terminal.screen());
    ensure!(terminal.screen().contains("profiler record"), "{}", terminal.screen());
    Ok(())
}

fn top_needs_both_streams_of_terminal() -> Result<()> {
    let option = option();
    for ending in ["<&-", ">&-", ">/dev/null", "| cat"] {
        let errors = shell(&format!("\"$0\" top {option} {ending}"))?;
        ensure!(errors.contains("top needs a terminal"), "{ending}: {errors}");
    }
    let errors = shell(&format!("\"$0\" top {option} <&- >&- 2>&-"))?;
    ensure!(errors.is_empty(), "{errors}");
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(top_without_terminal_names_alternatives),
        test!(top_on_dumb_terminal_names_alternatives),
        test!(top_needs_both_streams_of_terminal),
    ]
}
