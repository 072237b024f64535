//! A labyrinth of C functions whose names say which function may call them: `n12_from_5` is called by room 5 only. So each native
//! stack can be proved right or wrong. The program is generated, and built in several ways.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Fixture, Scratch, Stack};

/// The number of rooms: a binary tree six deep.
const ROOMS: usize = 63;

/// The function around the labyrinth.
const OUTSIDE: &str = "walk";

/// What runs in the handler of the signal that the program sends itself; it may stand on top of any function.
const HANDLER: &str = "on_alarm";
const IN_HANDLER: &str = "work_from_on_alarm";

/// A way to build the program.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// What it is called in messages.
    pub name: &'static str,
    options: &'static str,
}

/// The ways in which it is built.
pub const BUILDS: &[Build] = &[
    Build { name: "unoptimised", options: "-O0" },
    Build { name: "without frame pointers", options: "-O2 -fomit-frame-pointer" },
    Build { name: "with frame pointers and debug information", options: "-O2 -g -fno-omit-frame-pointer" },
    Build { name: "static", options: "-O2 -static" },
    Build { name: "at a fixed address", options: "-O1 -no-pie" },
];

/// Builds the program and starts it. Beside the first thread, `threads` others walk.
///
/// # Errors
/// When it cannot be built or started.
pub fn start(build: Build, threads: usize, scratch: &Scratch) -> Result<Fixture> {
    Fixture::start_words(&[program(build, scratch)?.into_os_string(), OsString::from(threads.to_string())])
}

/// Builds the program.
///
/// # Errors
/// When the compiler fails.
pub fn program(build: Build, scratch: &Scratch) -> Result<PathBuf> {
    let (source, program) = (scratch.file("labyrinth.c"), scratch.file("labyrinth"));
    std::fs::write(&source, source_text())?;
    let mut compiler = Command::new("gcc");
    compiler.args(build.options.split_whitespace()).arg("-pthread").arg("-o").arg(&program).arg(&source);
    let built = compiler.output().context("gcc")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}

fn parent(room: usize) -> usize {
    (room - 1) / 2
}

fn room(number: usize) -> String {
    match number {
        0 => "n0_from_walk".to_owned(),
        number => format!("n{number}_from_{}", parent(number)),
    }
}

/// The C source: rooms with small and large frames, aligned ones, ones that keep much in registers.
fn source_text() -> String {
    let mut text = String::from(
        "#include <pthread.h>\n#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
         #include <sys/time.h>\n#include <unistd.h>\n\
         #define ROOM __attribute__((noinline, noclone)) void\n\
         #define LEAVE __asm__ volatile(\"\" ::: \"memory\")\n\
         static volatile unsigned long sink;\n\
         static inline void work(int n) { for (int i = 0; i < n; i++) sink += i; }\n",
    );
    for number in (0..ROOMS).rev() {
        let frame = match number % 4 {
            0 => "char space[64]; memset(space, 1, sizeof space); sink += space[7];",
            1 => "char space[9000]; memset(space, 1, 128); sink += space[7];",
            2 => "volatile char space[96] __attribute__((aligned(64))); space[3] = 1; sink += space[3];",
            _ => "",
        };
        let calls: String = [2 * number + 1, 2 * number + 2]
            .into_iter()
            .filter(|child| *child < ROOMS)
            .map(|child| format!("{}(n + {child}); ", room(child)))
            .collect();
        let _ = writeln!(
            text,
            "ROOM {}(int n) {{ {frame} work(200 + n % 7); {calls}work(50); LEAVE; }}",
            room(number)
        );
    }
    text.push_str(
        "ROOM work_from_on_alarm(void) { work(200000); LEAVE; }\n\
         static void on_alarm(int signal) { (void)signal; work_from_on_alarm(); LEAVE; }\n\
         __attribute__((noinline)) void *walk(void *none) { for (;;) n0_from_walk(1); return none; }\n\
         int main(int count, char **words) {\n\
           (void)count;\n\
           struct sigaction action = {0};\n\
           action.sa_handler = on_alarm;\n\
           action.sa_flags = SA_RESTART;\n\
           sigaction(SIGALRM, &action, 0);\n\
           struct itimerval timer = {{0, 3000}, {0, 3000}};\n\
           setitimer(ITIMER_REAL, &timer, 0);\n\
           for (int i = 0; i < atoi(words[1]); i++) {\n\
             pthread_t thread;\n\
             pthread_create(&thread, 0, walk, 0);\n\
           }\n\
           printf(\"ready %d\\n\", getpid());\n\
           fflush(stdout);\n\
           walk(0);\n\
           return 0;\n\
         }\n",
    );
    text
}

/// Whether a stack can exist.
///
/// # Errors
/// When it cannot, with the frames that do not belong together.
pub fn judge(stack: &Stack) -> Result<(), String> {
    let names: Vec<&str> = stack.frames.iter().map(|frame| frame.function.as_str()).collect();
    let Some(first) = names.iter().position(|name| *name == OUTSIDE || *name == "main") else {
        return Err(format!("a stack outside of the program: {names:?}"));
    };
    if names[..first].iter().any(|name| name.starts_with('n') && name.contains("_from_")) {
        return Err(format!("a room outside of the walk: {names:?}"));
    }
    let mut rooms = 0;
    for pair in names[first..].windows(2) {
        let (caller, callee) = (pair[0], pair[1]);
        if let Some((number, from)) = callee.strip_prefix('n').and_then(|name| name.split_once("_from_")) {
            rooms += 1;
            let expected = match number {
                "0" => caller == OUTSIDE,
                _ => caller.starts_with(&format!("n{from}_from_")),
            };
            if !expected {
                return Err(format!("{callee} on {caller}: {names:?}"));
            }
        } else if callee == IN_HANDLER && caller != HANDLER {
            return Err(format!("{callee} on {caller}: {names:?}"));
        }
    }
    match rooms > 7 {
        true => Err(format!("deeper than the labyrinth: {names:?}")),
        false => Ok(()),
    }
}
