//! `profiler man` and `profiler completions`: what packages install beside the binary, made from the same
//! definition of the command line that parses it, so that they cannot say anything else.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::destination::write_to_stdout;
use crate::flags::Flags;

/// What the tool does, for who has never seen it.
const DESCRIPTION: [&str; 3] = [
    "profiler looks into running CPython processes, 3.6 to 3.15, from outside: no change to the program, no \
     restart, no import. It samples the stacks of all threads and shows where the time goes.",
    "Every sample is true: a stack that never existed is never shown. What could not be read is counted under a \
     named reason, and the counts are part of every output. A sample stops one thread for some tens of \
     microseconds, or none at all where nobody runs Python; every run ends with what it cost.",
    "A command that profiler starts needs no rights, and so do processes of one's own where \
     kernel.yama.ptrace_scope is 0 or missing. Processes of others need CAP_SYS_PTRACE, which sudo gives; \
     profiler doctor says what is missing.",
];

const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "It worked."),
    ("1", "It failed, and said on stderr what failed and what may help; doctor: record would not work."),
    ("2", "It was used wrongly; nothing was done."),
    ("others", "record -- COMMAND: the command's own when it failed, 128 + N when signal N ended it."),
];

/// Writes the script that makes a shell complete the command line; returns the exit status.
///
/// # Errors
/// When stdout cannot be written.
pub fn completions(shell: Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(), "profiler", &mut script);
    write_to_stdout(|out| Ok(out.write_all(&script)?))?;
    Ok(0)
}

/// Writes the manual page; returns the exit status.
///
/// # Errors
/// When stdout cannot be written.
pub fn manual() -> anyhow::Result<u8> {
    let page = page()?;
    write_to_stdout(|out| Ok(out.write_all(page.as_bytes())?))?;
    Ok(0)
}

/// The command line without what is only recognised to be refused by name: shells would offer that too.
fn visible() -> Command {
    let mut all = Flags::command();
    let shown = Command::new("profiler").version(env!("CARGO_PKG_VERSION")).about(about(&all));
    let subcommands = all.get_subcommands_mut().filter(|one| !one.is_hide_set()).map(|one| {
        let arguments = one.get_arguments().filter(|one| !one.is_hide_set()).cloned();
        Command::new(one.get_name().to_owned()).about(about(one)).args(arguments)
    });
    shown.subcommands(subcommands)
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// The whole page.
fn page() -> io::Result<String> {
    let mut page = Vec::new();
    write_page(&mut page)?;
    let mut tidy = String::new();
    let mut before = "";
    for line in String::from_utf8_lossy(&page).lines() {
        // A heading starts a paragraph of its own, and space a line.
        let is_idle = match line {
            ".PP" => before == ".SH",
            ".br" => matches!(before, ".sp" | ".br"),
            _ => line.is_empty(),
        };
        if is_idle {
            continue;
        }
        if line == ".sp" && before == ".br" {
            tidy.truncate(tidy.len() - ".br\n".len());
        }
        before = heading_or_macro(line);
        tidy += line;
        tidy.push('\n');
    }
    Ok(tidy)
}

/// A line as far as it matters to the one after it.
fn heading_or_macro(line: &str) -> &'static str {
    match line.split(' ').next() {
        Some(".SH" | ".SS") => ".SH",
        Some(".sp") => ".sp",
        Some(".br") => ".br",
        _ => "",
    }
}

fn write_page(out: &mut dyn Write) -> io::Result<()> {
    let mut command = Flags::command();
    command.build();
    let subcommands: Vec<Command> = command
        .get_subcommands()
        .filter(|one| !one.is_hide_set() && one.get_name() != "help")
        .cloned()
        .collect();
    let man = Man::new(command.clone());
    // Without a date, which would make every build another page.
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, ".TH PROFILER 1 \"\" \"profiler {version}\" \"User Commands\"")?;
    man.render_name_section(&mut *out)?;
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    for mut subcommand in subcommands.clone() {
        write_usage(&mut page, &mut subcommand);
    }
    page.control("SH", ["DESCRIPTION"]);
    write_paragraphs(&mut page, &DESCRIPTION);
    page.to_writer(&mut *out)?;
    for subcommand in subcommands {
        write_subcommand(subcommand, out)?;
    }
    let mut page = Roff::new();
    page.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUS {
        page.control("TP", []);
        page.text([bold(status)]);
        page.text([roman(meaning)]);
    }
    if let Some(help) = command.get_after_help() {
        page.control("SH", ["EXAMPLES"]);
        write_help(&mut page, &help.to_string());
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("perf"), roman("(1), "), bold("ptrace"), roman("(2)")]);
    page.to_writer(out)
}

/// The section of one subcommand: what it does, its options, its examples.
fn write_subcommand(mut subcommand: Command, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Roff::new();
    page.control("SH", [format!("profiler {}", subcommand.get_name()).to_uppercase().as_str()]);
    page.text([roman(format!("{}.", about(&subcommand)))]);
    write_usage(&mut page, &mut subcommand);
    page.to_writer(&mut *out)?;
    let mut options = Vec::new();
    Man::new(subcommand.clone()).render_options_section(&mut options)?;
    out.write_all(String::from_utf8_lossy(&options).replace(".SH OPTIONS", ".SS Options").as_bytes())?;
    if let Some(help) = subcommand.get_after_help() {
        let mut page = Roff::new();
        page.control("SS", ["Examples"]);
        write_help(&mut page, &help.to_string());
        page.to_writer(out)?;
    }
    Ok(())
}

fn write_usage(page: &mut Roff, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let lines = usage.trim_start_matches("Usage: ").lines().map(str::trim);
    write_verbatim(page, lines);
}

/// Lines that stay as they are.
fn write_verbatim<'a>(page: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    page.control("PP", []);
    page.control("nf", []);
    lines.for_each(|line| {
        page.text([roman(line)]);
    });
    page.control("fi", []);
}

fn write_paragraphs(page: &mut Roff, paragraphs: &[&str]) {
    for paragraph in paragraphs {
        page.control("PP", []);
        page.text([roman(*paragraph)]);
    }
}

/// The text behind a command's help: its examples, which are indented, then paragraphs.
fn write_help(page: &mut Roff, help: &str) {
    for block in help.trim_start_matches("Examples:").split("\n\n") {
        let (examples, text): (Vec<&str>, Vec<&str>) =
            block.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with("  "));
        if !examples.is_empty() {
            write_verbatim(page, examples.into_iter().map(str::trim_start));
        }
        // What the exit status is has its own section.
        let text: Vec<&str> = text.into_iter().filter(|line| !line.starts_with("Exit status:")).collect();
        if !text.is_empty() {
            write_paragraphs(page, &[&text.join(" ")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_option_once_and_none_that_is_hidden() {
        let page = page().unwrap();
        for subcommand in Flags::command().get_subcommands().filter(|one| !one.is_hide_set()) {
            let title = format!(".SH \"PROFILER {}\"", subcommand.get_name().to_uppercase());
            let (_, section) = page.split_once(&title).unwrap_or_else(|| panic!("no {title} in\n{page}"));
            let section = section.split("\n.SH ").next().unwrap();
            for option in subcommand.get_arguments() {
                let Some(long) = option.get_long() else { continue };
                let name = format!("\\-\\-{}\\fR", long.replace('-', "\\-"));
                assert_eq!(
                    section.matches(&name).count(),
                    usize::from(!option.is_hide_set()),
                    "{name}\n{section}"
                );
            }
        }
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\"", "EXAMPLES"] {
            assert!(page.contains(&format!(".SH {section}\n")), "no {section}");
        }
    }

    #[test]
    fn scripts_complete_what_there_is_and_nothing_that_is_hidden() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut visible(), "profiler", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["record", "doctor", "chrometrace", "nonblocking"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
            assert!(!script.contains("--native") && !script.contains("Later:"), "{shell}");
        }
    }
}
