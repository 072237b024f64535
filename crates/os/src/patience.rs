//! Work that may never come back, done by another thread, so that the caller waits for it only so long.
//!
//! A system call that waits for a page or a file of a target (a network file system, FUSE, a `userfaultfd` handler) is
//! interrupted by no signal but one that kills the whole process. A thread inside such a call is left behind; it ends
//! with this process.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use profiler_model::Nanos;

use crate::quiet_thread;

/// The most threads that are left behind: no target makes this process grow without bounds.
const MAX_WORKERS: usize = 64;

/// The workers of this process. The ones that have nothing to do are reused: starting a thread takes longer than most work.
static WORKERS: Mutex<Workers> = Mutex::new(Workers { idle: Vec::new(), started: 0 });

/// What a worker does; it is handed the way by which it gets its next job.
struct Job(Box<dyn FnOnce(Sender<Job>) + Send>);

struct Workers {
    idle: Vec<Sender<Job>>,
    started: usize,
}

/// Work that another thread does.
#[derive(Debug)]
pub struct Pending<T>(Receiver<T>);

impl<T: Send + 'static> Pending<T> {
    /// Has another thread do `work`.
    ///
    /// # Errors
    /// When no thread can be started, or as many as are allowed have not come back from what they do.
    pub fn begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (tell, answer) = mpsc::channel();
        let job = move |itself| {
            let result = work();
            // Before the caller hears of it, so that its next work finds this worker idle.
            workers().idle.push(itself);
            // A caller that has given up does not listen.
            let _ = tell.send(result);
        };
        hand_over(Job(Box::new(job)))?;
        Ok(Pending(answer))
    }

    /// The result, unless it takes longer than `limit`.
    pub fn wait(&self, limit: Nanos) -> Option<T> {
        self.0.recv_timeout(Duration::from(limit)).ok()
    }
}

fn hand_over(job: Job) -> io::Result<()> {
    let worker = match workers().take()? {
        Some(idle) => idle,
        None => start_worker()?,
    };
    worker.send(job).map_err(|_| io::Error::other("a worker thread has ended"))
}

fn start_worker() -> io::Result<Sender<Job>> {
    let (worker, jobs) = mpsc::channel::<Job>();
    let itself = worker.clone();
    quiet_thread::spawn("patience", move || {
        for Job(job) in jobs {
            job(itself.clone());
        }
    })
    .inspect_err(|_| workers().started -= 1)?;
    Ok(worker)
}

impl Workers {
    /// An idle worker, or `None` where one is to be started.
    fn take(&mut self) -> io::Result<Option<Sender<Job>>> {
        if let Some(idle) = self.idle.pop() {
            return Ok(Some(idle));
        }
        if self.started >= MAX_WORKERS {
            return Err(io::Error::other("too many threads wait for what does not answer"));
        }
        self.started += 1;
        Ok(None)
    }
}

fn workers() -> MutexGuard<'static, Workers> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Nanos = Nanos::from_nanos(60_000_000_000);

    #[test]
    fn work_that_hangs_holds_up_neither_caller_nor_other_work() {
        let (let_go, held) = mpsc::channel::<()>();
        let hanging = Pending::begin(move || held.recv().is_ok()).unwrap();
        assert_eq!(hanging.wait(Nanos::from_nanos(1_000)), None);
        for number in 0..100 {
            assert_eq!(Pending::begin(move || number).unwrap().wait(LONG), Some(number));
        }
        let_go.send(()).unwrap();
        assert_eq!(hanging.wait(LONG), Some(true));
    }

    #[test]
    fn workers_are_reused_and_bounded() {
        let mut workers = Workers { idle: Vec::new(), started: MAX_WORKERS - 1 };
        assert!(workers.take().unwrap().is_none());
        assert!(workers.take().is_err());
        workers.idle.push(mpsc::channel().0);
        assert!(workers.take().unwrap().is_some());
        assert!(workers.take().is_err());
    }
}
