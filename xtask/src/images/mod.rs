//! `cargo xtask images`: records the pictures of the README again, the flame graph of the Julia fixture and the screen of
//! `top`, and puts them into `docs/images`.

mod screen;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use profiler_tests::{Terminal, profiler_path};

use crate::run;

/// Pictures are part of every clone, so they stay small.
const MAX_BYTES: u64 = 60_000;

/// The rows and columns of the terminal in which `top` is shown.
const TERMINAL: (u16, u16) = (16, 100);

/// The pixels of the flame graph, from side to side and down. What is below, the deep and narrow stacks of imports, is cut
/// off.
const FLAME_SIZE: (u32, u32) = (1200, 190);

/// For how many seconds `top` watches before its picture is taken.
const SECONDS_WATCHED: f64 = 6.0;

/// Makes both pictures.
///
/// # Errors
/// When a program that is needed is missing or fails, or a picture is too large.
pub fn run() -> Result<()> {
    run::build_profiler()?;
    let folder = run::workspace().join("docs/images");
    fs::create_dir_all(&folder)?;
    draw_flame_graph(&folder.join("flame.png"))?;
    draw_top(&folder.join("top.svg"))
}

/// The words that run a command in the Julia fixture's folder with the system's Python, so that no path of this machine is
/// in the picture.
fn in_fixture(words: &[&str]) -> Vec<OsString> {
    let mut chdir = OsString::from("--chdir=");
    chdir.push(run::workspace().join("fixtures/julia"));
    let mut command: Vec<OsString> =
        vec!["env".into(), chdir, "PATH=/usr/bin:/bin".into(), profiler_path().into()];
    command.extend(words.iter().map(OsString::from));
    command
}

fn draw_flame_graph(picture: &Path) -> Result<()> {
    let drawing = run::target_folder().join("flame.svg");
    let output = drawing.to_string_lossy();
    let words = in_fixture(&["record", "-r", "200", "-o", &output, "--", "python3", "julia.py"]);
    run::insist(Command::new(&words[0]).args(&words[1..]))?;

    let (width, height) = FLAME_SIZE;
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]);
    chromium.arg(format!("--window-size={width},{height}"));
    chromium.arg(format!("--screenshot={}", picture.display())).arg(format!("file://{output}"));
    // It reports missing services of a desktop, which it does not need.
    chromium.stderr(Stdio::null());
    run::insist(&mut chromium).context("apt install chromium")?;
    expect_small(picture)
}

fn draw_top(picture: &Path) -> Result<()> {
    let words = in_fixture(&["top", "-F", "--", "python3", "julia.py", "--size", "3000"]);
    let mut terminal = Terminal::start(&words, TERMINAL)?;
    terminal.press_for("2", "escape_counts")?;
    terminal.wait_for("a picture", |screen| {
        seconds_watched(screen).is_some_and(|secs| secs >= SECONDS_WATCHED)
    })?;
    fs::write(picture, screen::svg(&terminal.cells()))?;
    terminal.press("q")?;
    terminal.wait()?;
    expect_small(picture)
}

/// How long `top` has watched: the last word of its first line.
fn seconds_watched(screen: &str) -> Option<f64> {
    screen.lines().next()?.split_whitespace().last()?.strip_suffix('s')?.parse().ok()
}

fn expect_small(picture: &Path) -> Result<()> {
    let bytes = fs::metadata(picture).with_context(|| format!("{} was not made", picture.display()))?.len();
    ensure!(bytes <= MAX_BYTES, "{} has {bytes} bytes, at most {MAX_BYTES} are permitted", picture.display());
    println!("{}: {bytes} bytes", picture.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_time_is_read_from_the_screen() {
        assert_eq!(seconds_watched("4711 Python 3.13 app.py    6.25s\nnext"), Some(6.25));
        assert_eq!(seconds_watched("starting"), None);
    }
}
