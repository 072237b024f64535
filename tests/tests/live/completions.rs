//! `completions` and `man`: that a real shell takes the script and completes by it, and that the page stands.

use std::process::Command;

use profiler_tests::suite::Test;
use profiler_tests::test;
use profiler_tests::{Profiler, Scratch};

/// What bash offers for the last of these words.
fn completed(script: &str, words: &[&str]) -> Vec<String> {
    let last = words.len() - 1;
    let line = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
    let program = format!(
        "source '{script}'\nCOMP_WORDS=({line})\nCOMP_CWORD={last}\n\
         function=$(complete -p profiler | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n\
         $function profiler '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words[last],
        words[last - 1],
    );
    let output = Command::new("bash").args(["--norc", "-c", &program]).output().expect("bash");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn bash_completes_subcommands_options_and_values() {
    let scratch = Scratch::new().unwrap();
    let file = scratch.file("profiler.bash");
    std::fs::write(&file, Profiler::new("completions").arg("bash").succeed().unwrap().stdout).unwrap();
    let script = file.to_str().unwrap();
    assert_eq!(completed(script, &["profiler", "rec"]), ["record"]);
    assert_eq!(completed(script, &["profiler", "record", "--nonb"]), ["--nonblocking"]);
    assert_eq!(completed(script, &["profiler", "record", "--format", "chr"]), ["chrometrace"]);
    assert_eq!(completed(script, &["profiler", "completions", "fi"]), ["fish"]);
    // What is only recognised to be refused by name is not offered.
    assert_eq!(completed(script, &["profiler", "record", "--nat"]), [""]);
}

fn other_shells_have_scripts_too_and_unknown_ones_are_refused() {
    let script = |shell| Profiler::new("completions").arg(shell).succeed().unwrap().stdout;
    assert!(script("zsh").starts_with("#compdef profiler"));
    assert!(script("fish").contains("complete -c profiler"));
    Profiler::new("completions").arg("tcsh").misuse().unwrap();
    Profiler::new("completions").misuse().unwrap();
}

fn the_manual_page_is_one_that_man_can_read() {
    let page = Profiler::new("man").succeed().unwrap().stdout;
    assert!(page.starts_with(".TH PROFILER 1 "), "{page}");
    // Every line is a macro that man pages have, or text that cannot be taken for one.
    let macros = ["TH", "SH", "SS", "PP", "TP", "RS", "RE", "IP", "nf", "fi", "br", "sp", "ie", "el"];
    for line in page.lines() {
        assert!(!line.starts_with('\''), "{line}");
        if let Some(rest) = line.strip_prefix('.') {
            let name = rest.split([' ', '\\']).next().unwrap();
            assert!(macros.contains(&name), "{line}");
        }
    }
    let count = |name: &str| page.lines().filter(|line| *line == name).count();
    assert_eq!(count(".nf"), count(".fi"), "text that is not filled ends");
    assert_eq!(page.matches("\n.RS").count(), page.matches("\n.RE").count(), "indents end");
    for words in ["profiler record [OPTIONS] \\-\\- <COMMAND>", ".SH \"EXIT STATUS\"", "\\-\\-nonblocking"] {
        assert!(page.contains(words), "no {words:?} in\n{page}");
    }
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(bash_completes_subcommands_options_and_values),
        test!(other_shells_have_scripts_too_and_unknown_ones_are_refused),
        test!(the_manual_page_is_one_that_man_can_read),
    ]
}
