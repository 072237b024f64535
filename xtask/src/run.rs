//! Running other programs, and where things lie in the checkout.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// The program that runs, as it starts itself: the file that it came from may have been built anew meanwhile.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Builds the binary under test, unless `PROFILER_BIN` names one that is already there.
pub fn build_profiler() -> Result<()> {
    if std::env::var_os("PROFILER_BIN").is_none() {
        insist(cargo().args(["build", "--release", "--package", "profiler-cli"]))?;
    }
    let program = profiler_tests::profiler_path();
    ensure!(program.exists(), "{} was not built", program.display());
    Ok(())
}

/// The checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The folder for everything that is built or prepared.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs a command, says so, and insists on its success.
pub fn insist(command: &mut Command) -> Result<()> {
    eprintln!("xtask: {}", shown(command));
    let status = command.status().with_context(|| shown(command))?;
    ensure!(status.success(), "{}: {status}", shown(command));
    Ok(())
}

/// Whether a command runs and succeeds, without a word.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What a command prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(command))?;
    ensure!(output.status.success(), "{}: {}", shown(command), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Does the same with each of these, as many at a time as there are CPUs; the first failure is returned when all
/// have come to their end.
pub fn side_by_side<T: Copy + Sync>(all: &[T], work: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    let waiting = Mutex::new(all.iter());
    let next = || waiting.lock().map_or(None, |mut waiting| waiting.next().copied());
    let on_one_cpu = || -> Result<()> {
        while let Some(one) = next() {
            work(one)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(on_one_cpu)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().display().to_string()];
    words.extend(command.get_args().map(|word| word.display().to_string()));
    words.join(" ")
}
