//! Changes the periods of the clocks that run the in-kernel program, every few ticks: a thread of its own, as the session
//! reads what the program sends more seldom, and is busy then.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use profiler_account::{PeriodSequence, Random, RandomPeriod};
use profiler_bpf::ClockEvents;
use profiler_model::Nanos;
use profiler_os::{clock, quiet_thread};

/// Changes periods until it is dropped.
#[derive(Debug)]
pub struct PeriodChanger {
    over: Arc<(Mutex<bool>, Condvar)>,
}

impl PeriodChanger {
    /// Begins. Where no thread can be started the periods stay as they are.
    pub fn start(events: Arc<Mutex<ClockEvents>>, range: RandomPeriod) -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let its_over = over.clone();
        // It has little to do, and whoever stops the clocks may wait for it.
        let _ = quiet_thread::spawn_prompt("periods", move || change_until(&its_over, &events, range));
        PeriodChanger { over }
    }
}

impl Drop for PeriodChanger {
    fn drop(&mut self) {
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
    }
}

/// Changes the period of one CPU after the other, each as often as the range says, whether it meets a target or not: a period
/// that misses a target would stay otherwise, and one that meets it would not.
fn change_until(over: &(Mutex<bool>, Condvar), events: &Mutex<ClockEvents>, range: RandomPeriod) {
    let mut random = Random::new(clock::now().as_nanos());
    let mut waiting: Vec<u32> = Vec::new();
    let mut periods: BTreeMap<u32, PeriodSequence> = BTreeMap::new();
    let mut is_over = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !*is_over {
        let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            waiting = events.cpus();
        }
        let cpus = events.cpus().len().max(1) as u64;
        if let Some(cpu) = waiting.pop() {
            let period = periods.entry(cpu).or_default().next(&range, &mut random);
            events.change(cpu, period, clock::now);
        }
        drop(events);
        let pause = Nanos::from_nanos(range.kept_for(&mut random).as_nanos() / cpus);
        let woken = over.1.wait_timeout(is_over, Duration::from(pause));
        is_over = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(is_over, _)| is_over);
    }
}
