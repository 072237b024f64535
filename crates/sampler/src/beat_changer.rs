//! Changes the periods of the clocks that run the in-kernel program, every few ticks: a thread of its own, as the session
//! reads what the program sends more seldom, and is busy then.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use profiler_bpf::Beats;
use profiler_model::Nanos;
use profiler_os::{clock, quiet_thread};

use crate::beat::{Beat, Periods};
use crate::random::Random;

/// Changes periods until it is dropped.
#[derive(Debug)]
pub struct BeatChanger {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl BeatChanger {
    /// Begins. Where no thread can be started the periods stay as they are.
    pub fn start(beats: Arc<Mutex<Beats>>, beat: Beat) -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let its_over = over.clone();
        let thread = quiet_thread::spawn("beat", move || change_until(&its_over, &beats, beat)).ok();
        BeatChanger { over, thread }
    }
}

impl Drop for BeatChanger {
    fn drop(&mut self) {
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It panicked, or it has ended.
            let _ = thread.join();
        }
    }
}

/// Changes the period of one CPU after the other, each as often as its beat says, whether it meets a target or not: a period
/// that misses a target would stay otherwise, and one that meets it would not.
fn change_until(over: &(Mutex<bool>, Condvar), beats: &Mutex<Beats>, beat: Beat) {
    let mut random = Random::new(clock::now().as_nanos());
    let mut waiting: Vec<u32> = Vec::new();
    let mut periods: BTreeMap<u32, Periods> = BTreeMap::new();
    let mut is_over = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !*is_over {
        let mut beats = beats.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            waiting = beats.cpus();
        }
        let cpus = beats.cpus().len().max(1) as u64;
        if let Some(cpu) = waiting.pop() {
            let period = periods.entry(cpu).or_default().next(&beat, &mut random);
            beats.change(cpu, period, clock::now);
        }
        drop(beats);
        let pause = Nanos::from_nanos(beat.kept_for(&mut random).as_nanos() / cpus);
        let woken = over.1.wait_timeout(is_over, Duration::from(pause));
        is_over = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(is_over, _)| is_over);
    }
}
