//! Every instruction of the standard library has the position that its interpreter gives it, on every version.

use std::io::BufReader;
use std::process::{Command, Stdio};

use profiler_tests::lines::{Comparison, SCRIPT, compare};

fn compare_interpreter(mut python: Command) -> Comparison {
    let mut child = python
        .args(["-I", "-W", "ignore", "-c", SCRIPT])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let stdout = child.stdout.take().expect("its stdout is a pipe");
    let comparison = compare(BufReader::with_capacity(1 << 20, stdout));
    let status = child.wait().expect("the interpreter is waited for");
    assert!(status.success(), "{python:?}: {status}");
    comparison.expect("the stream is whole")
}

fn interpreters() -> Vec<Command> {
    let root = Command::new("pyenv").arg("root").output().expect("pyenv");
    let root = String::from_utf8(root.stdout).expect("utf-8");
    let mut found: Vec<Command> =
        ["3.6.15", "3.7.16", "3.8.18", "3.9.18", "3.10.13", "3.11.7", "3.12.1", "3.13.0"]
            .iter()
            .map(|version| Command::new(format!("{}/versions/{version}/bin/python", root.trim())))
            .collect();
    for version in ["3.14", "3.15"] {
        let mut command = Command::new("chroot");
        command.args(["../target/roots/sid", &format!("python{version}")]);
        found.push(command);
    }
    found
}

#[test]
fn every_instruction_of_the_standard_library_has_its_position() {
    for python in interpreters() {
        let name = format!("{python:?}");
        let started = std::time::Instant::now();
        let comparison = compare_interpreter(python);
        println!("{name} {:?} {comparison:?}", started.elapsed());
        assert_eq!(comparison.different, 0, "{name}: {comparison:#?}");
    }
}
