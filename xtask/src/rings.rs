//! `cargo xtask rings`: stores what the in-kernel program sends of the labyrinth, at an ordinary rate and under overload. Crate
//! `sampler` replays it without a kernel.
//!
//! Records have paths of this machine in them, which are replaced by as many letters.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use profiler_model::{LossReason, Nanos, Pid, Timestamp};
use profiler_profile::{CapturePolicy, Dictionary, Event, Profile, Sink};
use profiler_sampler::{BpfProgram, Directive, KeptRecords, Observer, SamplerKind, SamplerOptions, Session};
use profiler_target::Target;
use profiler_tests::{Fixture, interpreters};

use crate::run;

/// The CPython whose labyrinth is recorded: its layout is in a table.
const VERSION: &str = "3.12";

/// What is stored of an ordinary recording, and of one under overload.
const MAX_BYTES: usize = 640 << 10;

/// Shorter parts of a path of this machine say nothing.
const SHORTEST_PART: usize = 5;

/// A ring: its name, the sample rate, for how long the reader sleeps after each look, and for how long is recorded.
const RINGS: [(&str, f64, Duration, Nanos); 2] = [
    ("labyrinth", 1_000.0, Duration::ZERO, Nanos::from_nanos(400_000_000)),
    ("overload", 40_000.0, Duration::from_millis(400), Nanos::from_nanos(2_000_000_000)),
];

/// A sink that may be slow.
struct Reader {
    profile: Profile,
    pause: Duration,
}

impl Sink for Reader {
    fn take(&mut self, dictionary: &Dictionary, events: &[Event]) {
        self.profile.take(dictionary, events);
    }
}

impl Observer for Reader {
    fn go_on(&mut self, _elapsed: Nanos) -> Directive {
        thread::sleep(self.pause);
        Directive::Continue
    }

    fn was_cut(&mut self, _at: Timestamp) {}
}

/// Makes both rings anew.
pub fn run() -> Result<()> {
    let folder = run::workspace().join("crates/sampler/tests/rings");
    fs::create_dir_all(&folder)?;
    for (name, rate_hz, pause, duration) in RINGS {
        let bytes = recorded(rate_hz, pause, duration, name == "overload")?;
        let path = folder.join(name);
        fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("rings: {name}: {} bytes", bytes.len());
    }
    Ok(())
}

fn recorded(rate_hz: f64, pause: Duration, duration: Nanos, is_overload: bool) -> Result<Vec<u8>> {
    let mut all = interpreters().iter();
    let interpreter = all.find(|one| one.label() == VERSION).context("no CPython 3.12")?;
    let fixture = Fixture::start(interpreter, "labyrinth/labyrinth.py", &[])?;
    fixture.work_for(Duration::from_millis(300))?;
    let options = SamplerOptions {
        rate_hz,
        kind: SamplerKind::Bpf,
        policy: CapturePolicy::Running,
        max_cpu: 1.0,
        native: false,
    };
    let mut session = Session::new(Target::attach(Pid::new(fixture.pid()))?, options);
    let mut program = BpfProgram::load(None)?;
    let kept = program.keep_records(MAX_BYTES);
    program.start(Nanos::from_nanos((1e9 / rate_hz) as u64))?;
    session.sample_by(program);
    let mut reader = Reader { profile: Profile::new(), pause };
    session.run(&mut reader, Some(duration));
    let ledger = reader.profile.ledger();
    let lost = ledger.lost_for(LossReason::BufferFull);
    ensure!(is_overload == (lost > 0), "{lost} of {} did not fit into the ring", ledger.attempts());
    let words = interpreter.words();
    Ok(without_paths(&kept, Path::new(&words[0])))
}

/// The records with paths of this machine replaced.
fn without_paths(kept: &Arc<Mutex<KeptRecords>>, interpreter: &Path) -> Vec<u8> {
    let mut bytes = kept.lock().unwrap_or_else(PoisonError::into_inner).as_bytes().to_vec();
    let prefix = interpreter.parent().and_then(Path::parent).unwrap_or(interpreter);
    for path in [prefix, run::workspace()] {
        let path = path.to_string_lossy();
        // Buffers of the program also have parts of what they held before.
        for length in (SHORTEST_PART..=path.len()).rev() {
            for part in path.as_bytes().windows(length) {
                let instead: Vec<u8> =
                    part.iter().map(|byte| if *byte == b'/' { b'/' } else { b'x' }).collect();
                replace(&mut bytes, part, &instead);
            }
        }
    }
    bytes
}

/// Writes `instead` wherever `what` is, of the same length.
fn replace(bytes: &mut [u8], what: &[u8], instead: &[u8]) {
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(what.len()).position(|window| window == what) {
        bytes[from + at..from + at + what.len()].copy_from_slice(instead);
        from += at + what.len();
    }
}
