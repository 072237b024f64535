//! `completions` and `man`: a real shell takes the script and completes by it, and `man` can read the page.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use profiler_tests::suite::Test;
use profiler_tests::{Profiler, Scratch, test};

/// The macros of man pages that the page may use.
const MACROS: [&str; 14] =
    ["TH", "SH", "SS", "PP", "TP", "RS", "RE", "IP", "nf", "fi", "br", "sp", "ie", "el"];

/// What bash offers for the last of these words.
fn completed(script: &str, words: &[&str]) -> Result<Vec<String>> {
    let last = words.len() - 1;
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let program = format!(
        "source '{script}'\nCOMP_WORDS=({line})\nCOMP_CWORD={last}\n\
         function=$(complete -p profiler | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
         $function profiler '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words[last],
        words[last - 1],
    );
    let output = Command::new("bash").args(["--norc", "-c", &program]).output().context("bash")?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn bash_completes_subcommands_options_and_values() -> Result<()> {
    let scratch = Scratch::new()?;
    let file = scratch.file("profiler.bash");
    std::fs::write(&file, Profiler::new("completions").arg("bash").succeed()?.stdout)?;
    let script = file.to_str().context("a path of the test")?;
    let expected: [(&[&str], &str); 5] = [
        (&["profiler", "rec"], "record"),
        (&["profiler", "record", "--nonb"], "--nonblocking"),
        (&["profiler", "record", "--format", "chr"], "chrometrace"),
        (&["profiler", "completions", "fi"], "fish"),
        // An option that is only recognised to be refused by name is not offered.
        (&["profiler", "record", "--nat"], ""),
    ];
    for (words, completion) in expected {
        let offered = completed(script, words)?;
        ensure!(offered == [completion], "{words:?}: {offered:?} instead of {completion:?}");
    }
    Ok(())
}

fn zsh_and_fish_have_scripts_unknown_shells_are_refused() -> Result<()> {
    let script = |shell| Ok::<_, anyhow::Error>(Profiler::new("completions").arg(shell).succeed()?.stdout);
    ensure!(script("zsh")?.starts_with("#compdef profiler"));
    ensure!(script("fish")?.contains("complete -c profiler"));
    Profiler::new("completions").arg("tcsh").misuse()?;
    Profiler::new("completions").misuse()?;
    Ok(())
}

fn manual_page_has_only_macros_that_man_knows() -> Result<()> {
    let page = Profiler::new("man").succeed()?.stdout;
    ensure!(page.starts_with(".TH PROFILER 1 "), "{page}");
    // Every line is a macro of man pages, or text that cannot be taken for one.
    for line in page.lines() {
        ensure!(!line.starts_with('\''), "{line}");
        if let Some(rest) = line.strip_prefix('.') {
            let name = rest.split([' ', '\\']).next().unwrap_or_default();
            ensure!(MACROS.contains(&name), "{line}");
        }
    }
    let count = |name: &str| page.lines().filter(|line| *line == name).count();
    ensure!(count(".nf") == count(".fi"), "text that is not filled does not end");
    ensure!(page.matches("\n.RS").count() == page.matches("\n.RE").count(), "an indent does not end");
    for words in ["profiler record [OPTIONS] \\-\\- <COMMAND>", ".SH \"EXIT STATUS\"", "\\-\\-nonblocking"] {
        ensure!(page.contains(words), "no {words:?} in\n{page}");
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(bash_completes_subcommands_options_and_values),
        test!(zsh_and_fish_have_scripts_unknown_shells_are_refused),
        test!(manual_page_has_only_macros_that_man_knows),
    ]
}
