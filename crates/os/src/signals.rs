//! The signals that users and services send, noted until the run loop asks for them.
//!
//! The handler does nothing but store a number, so a signal never interrupts anything half done. It also
//! stores who sent the signal: what the terminal sends reaches a launched command by itself, what another
//! process sends to the profiler alone has to be passed on.
//!
//! Ctrl-Z is noted as well, and obeyed when nothing is stopped: a profiler that is suspended while it holds a
//! thread of its target would hold it until it goes on.

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use profiler_model::{Nanos, Pid, Timestamp};

use crate::clock;

/// A signal that users and services send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserSignal {
    /// `SIGINT`: Ctrl-C.
    Interrupt,
    /// `SIGTERM`: what `kill`, `docker stop` and service managers send.
    Terminate,
    /// `SIGHUP`: the terminal is gone.
    HangUp,
    /// `SIGQUIT`: Ctrl-\.
    Quit,
    /// `SIGUSR1`: means what a launched command makes of it.
    User1,
    /// `SIGUSR2`: the same.
    User2,
}

impl UserSignal {
    /// All of them.
    pub const ALL: [UserSignal; 6] = [
        UserSignal::Interrupt,
        UserSignal::Terminate,
        UserSignal::HangUp,
        UserSignal::Quit,
        UserSignal::User1,
        UserSignal::User2,
    ];

    /// The kernel's number of the signal.
    pub const fn number(self) -> i32 {
        match self {
            UserSignal::Interrupt => libc::SIGINT,
            UserSignal::Terminate => libc::SIGTERM,
            UserSignal::HangUp => libc::SIGHUP,
            UserSignal::Quit => libc::SIGQUIT,
            UserSignal::User1 => libc::SIGUSR1,
            UserSignal::User2 => libc::SIGUSR2,
        }
    }

    /// Whether it asks for an end, rather than meaning something to the command alone.
    pub const fn asks_for_end(self) -> bool {
        !matches!(self, UserSignal::User1 | UserSignal::User2)
    }

    /// A second Ctrl-C or Ctrl-\ quits at once, if it comes late enough to be meant as one ([`Repeated`]).
    const fn forces_when_repeated(self) -> bool {
        matches!(self, UserSignal::Interrupt | UserSignal::Quit)
    }
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The kernel, on behalf of the terminal: the whole process group in the foreground got it.
    Terminal,
    /// A process; 0 where it cannot be seen from here (it is outside of this PID namespace).
    Process(Pid),
}

/// A signal that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which one.
    pub signal: UserSignal,
    /// From whom.
    pub sender: Sender,
}

/// The last signal of each kind that nobody asked for yet, packed by [`Received::pack`]; 0 is none.
static PENDING: [AtomicU64; UserSignal::ALL.len()] = [const { AtomicU64::new(0) }; UserSignal::ALL.len()];

/// Whether Ctrl-Z came and was not obeyed yet.
static SUSPENSION_ASKED: AtomicBool = AtomicBool::new(false);

/// Whether the profiler was continued and nobody asked yet.
static CONTINUED: AtomicBool = AtomicBool::new(false);

/// Whether this process was suspended and goes on since this was asked last.
pub fn was_continued() -> bool {
    CONTINUED.swap(false, Ordering::Relaxed)
}

/// Whether Ctrl-Z came and is still to be obeyed: [`Signals::suspend_if_asked`].
pub fn is_suspension_asked() -> bool {
    SUSPENSION_ASKED.load(Ordering::Relaxed)
}

/// Whether Ctrl-Z has to wait.
static SUSPENSION_HELD: AtomicBool = AtomicBool::new(false);

/// While this exists, Ctrl-Z is not obeyed but where it lets it: there is something to be ended first.
#[derive(Debug)]
pub struct SuspensionHold(());

impl SuspensionHold {
    /// From now on.
    pub fn begin() -> Self {
        SUSPENSION_HELD.store(true, Ordering::Relaxed);
        SuspensionHold(())
    }

    /// Runs `may_suspend`, in which Ctrl-Z may be obeyed.
    pub fn lift<T>(&mut self, may_suspend: impl FnOnce() -> T) -> T {
        SUSPENSION_HELD.store(false, Ordering::Relaxed);
        let result = may_suspend();
        SUSPENSION_HELD.store(true, Ordering::Relaxed);
        result
    }
}

impl Drop for SuspensionHold {
    fn drop(&mut self) {
        SUSPENSION_HELD.store(false, Ordering::Relaxed);
    }
}

/// How long after the end of a recording, or the first Ctrl-C that was acted on, another one quits: wrappers that pass on
/// Ctrl-C send a second one within milliseconds, and a user does not press it twice so soon.
const SHORTEST_REPEAT: Nanos = Nanos::from_nanos(500_000_000);

/// The same of a first one that was not acted on for so long: then the profiler hangs.
const LONGEST_REACTION: Nanos = Nanos::from_nanos(5_000_000_000);

/// When the end was acted on, and since when an unanswered Ctrl-C asks for it, in nanoseconds; 0 is never.
static ENDING_SINCE: AtomicU64 = AtomicU64::new(0);
static ASKED_SINCE: AtomicU64 = AtomicU64::new(0);

/// What is written to stderr when a repeated Ctrl-C quits: a reference to it, or null.
static FAREWELL: AtomicPtr<&'static str> = AtomicPtr::new(std::ptr::null_mut());

/// What went before another Ctrl-C.
#[derive(Clone, Copy, Debug, Default)]
struct Repeated {
    /// When the end was acted on.
    ending_since: Option<Timestamp>,
    /// Since when one waits to be acted on.
    asked_since: Option<Timestamp>,
}

impl Repeated {
    /// What is known now.
    fn now() -> Self {
        let instant = |nanos: &AtomicU64| match nanos.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Timestamp::from_nanos(nanos)),
        };
        Repeated { ending_since: instant(&ENDING_SINCE), asked_since: instant(&ASKED_SINCE) }
    }

    /// Whether one that comes at `now` quits at once.
    fn quits(self, now: Timestamp) -> bool {
        let is_past = |since: Option<Timestamp>, wait| since.is_some_and(|since| now.since(since) >= wait);
        is_past(self.ending_since, SHORTEST_REPEAT) || is_past(self.asked_since, LONGEST_REACTION)
    }
}

/// Notes that what is done is being ended, for whatever reason: a Ctrl-C that comes later quits.
pub fn note_ending() {
    let now = clock::now().as_nanos();
    let _ = ENDING_SINCE.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    ASKED_SINCE.store(0, Ordering::Relaxed);
}

/// Has this be written to stderr if a repeated Ctrl-C quits: what is lost by that.
pub fn set_farewell(text: Option<&'static &'static str>) {
    let text = text.map_or(std::ptr::null_mut(), |text| std::ptr::from_ref(text).cast_mut());
    FAREWELL.store(text, Ordering::Relaxed);
}

const RECEIVED: u64 = 1 << 63;
const FROM_TERMINAL: u64 = 1 << 62;

/// While this exists, the signals in [`UserSignal`] are noted instead of ending the profiler. Dropping it
/// gives them back what they did before.
#[derive(Debug)]
pub struct Signals {
    previous: Vec<(i32, libc::sigaction)>,
    ignored: Vec<UserSignal>,
}

impl Signals {
    /// Starts to note signals. A `SIGHUP` that is ignored (`nohup`) stays ignored.
    ///
    /// # Errors
    /// When the kernel refuses a handler.
    pub fn install() -> io::Result<Self> {
        let mut signals = Signals { previous: Vec::new(), ignored: Vec::new() };
        [&ENDING_SINCE, &ASKED_SINCE].into_iter().for_each(|since| since.store(0, Ordering::Relaxed));
        set_farewell(None);
        for signal in UserSignal::ALL {
            let before = current_action(signal.number())?;
            if before.sa_sigaction == libc::SIG_IGN {
                signals.ignored.push(signal);
                if signal == UserSignal::HangUp {
                    continue;
                }
            }
            PENDING[signal as usize].store(0, Ordering::Relaxed);
            set_action(signal.number(), &noting_action())?;
            signals.previous.push((signal.number(), before));
        }
        for number in [libc::SIGTSTP, libc::SIGCONT] {
            let before = current_action(number)?;
            // Who started us may want no Ctrl-Z: shells without job control.
            if before.sa_sigaction != libc::SIG_IGN {
                set_action(number, &noting_action())?;
                signals.previous.push((number, before));
            }
        }
        Ok(signals)
    }

    /// Stops this process if Ctrl-Z asks for it and nobody holds it off, and returns when it goes on. For moments at which nothing of the
    /// target is stopped.
    pub fn suspend_if_asked(&self) {
        if SUSPENSION_HELD.load(Ordering::Relaxed) || !SUSPENSION_ASKED.swap(false, Ordering::Relaxed) {
            return;
        }
        // As whoever did not note it: where no shell could continue us, the kernel stops nobody.
        let usual = self.previous.iter().find(|(number, _)| *number == libc::SIGTSTP);
        if let Some((number, usual)) = usual
            && set_action(*number, usual).is_ok()
        {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP);
            let _ = set_action(*number, &noting_action());
        }
    }

    /// A signal that came in since it was last asked for, if any. Ctrl-Z is obeyed here: nothing of the target may
    /// be stopped meanwhile.
    pub fn take(&self) -> Option<Received> {
        self.suspend_if_asked();
        let received = UserSignal::ALL.into_iter().find_map(|signal| {
            let packed = PENDING[signal as usize].swap(0, Ordering::Relaxed);
            Received::unpack(signal, packed)
        })?;
        if received.signal.asks_for_end() {
            note_ending();
        }
        Some(received)
    }

    /// The signals that were ignored when the profiler was started: a command that it launches must find
    /// them ignored as well.
    pub fn ignored_before(&self) -> &[UserSignal] {
        &self.ignored
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, before) in &self.previous {
            // Giving back what the kernel accepted before cannot fail, and nothing could be done if it did.
            let _ = set_action(*signal, before);
        }
    }
}

impl Received {
    fn pack(code: i32, sender: i32) -> u64 {
        let origin = if code == libc::SI_KERNEL { FROM_TERMINAL } else { u64::from(sender.cast_unsigned()) };
        RECEIVED | origin
    }

    fn unpack(signal: UserSignal, packed: u64) -> Option<Received> {
        if packed & RECEIVED == 0 {
            return None;
        }
        let sender = if packed & FROM_TERMINAL != 0 {
            Sender::Terminal
        } else {
            Sender::Process(Pid::new(packed as u32))
        };
        Some(Received { signal, sender })
    }
}

extern "C" fn note(number: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    match number {
        libc::SIGTSTP => return SUSPENSION_ASKED.store(true, Ordering::Relaxed),
        libc::SIGCONT => return CONTINUED.store(true, Ordering::Relaxed),
        _ => {}
    }
    // SAFETY: the kernel passes a valid siginfo to a handler that is installed with SA_SIGINFO; `si_pid`
    // is only used when the signal was not made by the kernel, where it is set.
    let (code, sender) = unsafe { ((*info).si_code, (*info).si_pid()) };
    if let Some(signal) = UserSignal::ALL.into_iter().find(|signal| signal.number() == number) {
        if signal.forces_when_repeated() {
            let now = clock::now();
            if Repeated::now().quits(now) {
                return quit(number);
            }
            let _ = ASKED_SINCE.compare_exchange(0, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed);
        }
        PENDING[signal as usize].store(Received::pack(code, sender), Ordering::Relaxed);
    }
}

/// Ends this process by the signal `number`, whose handler this is called from.
fn quit(number: libc::c_int) {
    let farewell = FAREWELL.load(Ordering::Relaxed);
    if !farewell.is_null() {
        // SAFETY: it is not null, so that it was made from a reference that is valid forever.
        let text = unsafe { *farewell };
        // SAFETY: the text is valid and outlives the call, which only reads it; a handler may call it.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: both take plain numbers, and a handler may call them. The signal is blocked until the handler returns.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
    }
}

fn noting_action() -> libc::sigaction {
    // SAFETY: sigaction is plain numbers, for which all zeroes are valid (no handler, no flags, no mask).
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = note;
    action.sa_sigaction = handler as libc::sighandler_t;
    // SA_RESTART: whoever waits for a stopped thread must not find half a wait because of Ctrl-C.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    action
}

fn current_action(number: i32) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: a null new action only asks; the old one is written to memory of its size.
    let asked = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has written the action.
    Ok(unsafe { action.assume_init() })
}

fn set_action(number: i32, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: the action is one that the kernel gave us, or has `note` as its handler, which only stores to
    // an atomic and is therefore safe to run at any point of the program.
    let set = unsafe { libc::sigaction(number, action, std::ptr::null_mut()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test for all, because signal handlers belong to the whole process.
    #[test]
    fn signals_are_noted_with_their_sender_and_given_back() {
        let before = current_action(libc::SIGHUP).unwrap().sa_sigaction;
        let signals = Signals::install().unwrap();
        assert_eq!(signals.take(), None);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        let sender = Sender::Process(Pid::new(std::process::id()));
        assert_eq!(signals.take(), Some(Received { signal: UserSignal::Interrupt, sender }));
        assert_eq!(signals.take(), Some(Received { signal: UserSignal::Terminate, sender }));
        assert_eq!(signals.take(), None);
        // It was acted on just now: this is a wrapper's.
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(signals.take(), Some(Received { signal: UserSignal::Interrupt, sender }));
        assert_ne!(current_action(libc::SIGTERM).unwrap().sa_sigaction, libc::SIG_DFL);
        assert!(!was_continued());
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGCONT).unwrap();
        assert!(was_continued() && !was_continued());
        let mut hold = SuspensionHold::begin();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP).unwrap();
        // This would stop the test if it were not held off.
        assert_eq!(signals.take(), None);
        assert!(is_suspension_asked());
        hold.lift(|| assert!(SUSPENSION_ASKED.swap(false, Ordering::Relaxed)));
        drop(signals);
        assert_eq!(current_action(libc::SIGHUP).unwrap().sa_sigaction, before);
    }

    #[test]
    fn interrupt_quits_when_the_first_was_acted_on_long_enough_ago() {
        let at = |millis: u64| Timestamp::from_nanos(millis * 1_000_000);
        let quits = |ending: Option<u64>, asked: Option<u64>, now| {
            Repeated { ending_since: ending.map(at), asked_since: asked.map(at) }.quits(at(now))
        };
        assert!(!quits(None, None, 10_000), "the first one");
        assert!(!quits(Some(1000), None, 1020), "a wrapper's");
        assert!(!quits(Some(1000), None, 1499));
        assert!(quits(Some(1000), None, 1500));
        assert!(!quits(None, Some(1000), 1020), "not acted on yet");
        assert!(!quits(None, Some(1000), 3000));
        assert!(quits(None, Some(1000), 6000), "it hangs");
    }

    #[test]
    fn origin_survives_packing() {
        let from_terminal = Received::unpack(UserSignal::Quit, Received::pack(libc::SI_KERNEL, 77)).unwrap();
        assert_eq!(from_terminal.sender, Sender::Terminal);
        let from_process = Received::unpack(UserSignal::Quit, Received::pack(libc::SI_USER, 77)).unwrap();
        assert_eq!(from_process.sender, Sender::Process(Pid::new(77)));
        assert_eq!(Received::unpack(UserSignal::Quit, 0), None);
    }
}
