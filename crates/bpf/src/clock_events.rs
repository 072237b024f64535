//! What runs the program: a perf event on each CPU, each with a period that can be changed while it ticks.
//!
//! We open the events ourselves and attach the program by `PERF_EVENT_IOC_SET_BPF`: aya closes the descriptor of an event once
//! it has a link (Linux 5.15 and later), and without it the period cannot be changed. A change restarts the kernel's
//! timer: the next tick comes one new period after it (`_perf_event_period`, `cpu_clock_event_start`;
//! kernel/events/core.c). So that the program does not take that for a late tick, its map `periods` says for each CPU which
//! period it has, and since when.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use aya::maps::{Array, MapData};
use profiler_model::{Nanos, Timestamp};

use crate::error::BpfError;

/// What the program knows of the clock of a CPU (`struct tick_period`): its period in nanoseconds, and the instant at which it was
/// set, by the monotonic clock; 0 while it is being set.
type TickPeriod = [u64; 2];

/// The perf events that run the program, by CPU. They are closed, and tick no longer, when this is dropped.
pub struct ClockEvents {
    program: OwnedFd,
    periods: Array<MapData, TickPeriod>,
    clocks: Array<MapData, Clock>,
    ticking: BTreeMap<u32, OwnedFd>,
    /// Whether none is to tick ever again.
    has_ended: bool,
}

/// What the program keeps of a CPU's clock (`clock`); zeros before its first tick.
type Clock = [u64; 8];

/// Which number of that is the count of ticks that found a process.
const FOUND: usize = 4;

impl ClockEvents {
    /// No event yet. The maps are the program's: `periods` and `clocks`.
    pub(crate) fn new(
        program: OwnedFd,
        periods: Array<MapData, TickPeriod>,
        clocks: Array<MapData, Clock>,
    ) -> Self {
        ClockEvents { program, periods, clocks, ticking: BTreeMap::new(), has_ended: false }
    }

    /// The CPUs that tick.
    pub fn cpus(&self) -> Vec<u32> {
        self.ticking.keys().copied().collect()
    }

    /// Has a CPU tick after each `period`, unless all have ended.
    ///
    /// # Errors
    /// When the kernel refuses the event.
    pub(crate) fn start(&mut self, cpu: u32, period: Nanos) -> Result<(), BpfError> {
        if self.has_ended {
            return Ok(());
        }
        // What is known of the clock that this CPU had before says nothing of the new one. A CPU that was not thought
        // possible has no place there, nor anywhere else in the program.
        let found = self.found_by(cpu);
        let mut clock = Clock::default();
        clock[FOUND] = found;
        let _ = self.clocks.set(cpu, clock, 0);
        let _ = self.periods.set(cpu, [period.as_nanos(), 1], 0);
        let event = open_cpu_clock(cpu, period).map_err(|error| BpfError::Event("perf_event_open", error))?;
        let program = self.program.as_raw_fd();
        request(&event, SET_BPF, program.cast_unsigned().into())
            .map_err(|error| BpfError::Event("PERF_EVENT_IOC_SET_BPF", error))?;
        request(&event, ENABLE, 0).map_err(|error| BpfError::Event("PERF_EVENT_IOC_ENABLE", error))?;
        self.ticking.insert(cpu, event);
        Ok(())
    }

    /// Changes the period of a CPU that ticks; one that does not, or has gone, is left alone. `now` reads the monotonic clock.
    pub fn change(&mut self, cpu: u32, period: Nanos, now: impl FnOnce() -> Timestamp) {
        let Some(event) = self.ticking.get(&cpu) else { return };
        let _ = self.periods.set(cpu, [period.as_nanos(), 0], 0);
        let mut nanos = period.as_nanos();
        // Should it be refused, the CPU ticks on after its old period, and its ticks may be reported as late.
        let _ = request(event, PERIOD, &raw mut nanos as u64);
        let _ = self.periods.set(cpu, [period.as_nanos(), now().as_nanos()], 0);
    }

    /// Has a CPU tick no longer.
    pub(crate) fn stop(&mut self, cpu: u32) {
        self.ticking.remove(&cpu);
    }

    /// Has no CPU tick any longer.
    pub(crate) fn stop_all(&mut self) {
        // To close an event takes longer than to disable it, and the others would tick meanwhile.
        self.ticking.values().for_each(|event| {
            let _ = request(event, DISABLE, 0);
        });
        self.ticking.clear();
    }

    /// Has no CPU tick ever again.
    pub fn end_all(&mut self) {
        self.has_ended = true;
        self.stop_all();
    }

    /// The number of ticks that interrupted a registered process.
    ///
    /// # Errors
    /// When the program's map cannot be read.
    pub(crate) fn found(&self) -> Result<u64, BpfError> {
        self.clocks.iter().map(|clock| Ok(clock?[FOUND])).sum()
    }

    fn found_by(&self, cpu: u32) -> u64 {
        self.clocks.get(&cpu, 0).map_or(0, |clock| clock[FOUND])
    }
}

impl std::fmt::Debug for ClockEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClockEvents").field("cpus", &self.cpus()).finish_non_exhaustive()
    }
}

/// `struct perf_event_attr` as its first version has it (`PERF_ATTR_SIZE_VER0`; include/uapi/linux/perf_event.h): the kernel
/// takes all that follows for zeros.
#[repr(C)]
#[derive(Default)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config_1: u64,
}

/// `PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_CPU_CLOCK`, `PERF_SAMPLE_RAW`, `PERF_FLAG_FD_CLOEXEC`.
const SOFTWARE: u32 = 1;
const CPU_CLOCK: u64 = 0;
const SAMPLE_RAW: u64 = 1 << 10;
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
/// The bit `disabled`: it does not tick before the program is attached.
const DISABLED: u64 = 1;

/// `PERF_EVENT_IOC_ENABLE`, `PERF_EVENT_IOC_DISABLE`, `PERF_EVENT_IOC_PERIOD` and `PERF_EVENT_IOC_SET_BPF`.
const ENABLE: libc::c_ulong = 0x2400;
const DISABLE: libc::c_ulong = 0x2401;
const PERIOD: libc::c_ulong = 0x4008_2404;
const SET_BPF: libc::c_ulong = 0x4004_2408;

/// The clock of a CPU, whatever runs there.
fn open_cpu_clock(cpu: u32, period: Nanos) -> io::Result<OwnedFd> {
    let attributes = EventAttributes {
        kind: SOFTWARE,
        size: size_of::<EventAttributes>() as u32,
        config: CPU_CLOCK,
        sample_period: period.as_nanos(),
        sample_type: SAMPLE_RAW,
        flags: DISABLED,
        wakeup_events: 1,
        ..EventAttributes::default()
    };
    let (every_process, no_group): (libc::pid_t, libc::c_int) = (-1, -1);
    // SAFETY: the call reads `size` bytes of the attributes, which live until it returns, and writes nothing there that is
    // ours (it may write the size that it would take, in the attributes' own field, only where it fails: they are not
    // used again).
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            every_process,
            cpu as libc::c_int,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

/// Asks something of an event.
fn request(event: &OwnedFd, what: libc::c_ulong, argument: u64) -> io::Result<()> {
    // SAFETY: of the four requests that are made, three take a number; `PERIOD` takes the address of a u64 that it reads, which
    // its caller keeps until this returns. None writes to memory of ours.
    let answer = unsafe { libc::ioctl(event.as_raw_fd(), what, argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
