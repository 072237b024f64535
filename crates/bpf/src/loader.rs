//! Loads the program, tells it what it needs to know, and hands on what it sends.

use std::os::fd::AsRawFd;

use aya::maps::{Array, HashMap, MapData, MapError, RingBuf};
use aya::programs::perf_event::{
    PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};
use profiler_model::{Nanos, Pid, Tid};

use crate::layout::{Layout, ThreadEntry};
use crate::records::Record;

/// The program as clang built it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("program/python.bpf.o");

/// The name of the program in the object.
const PROGRAM: &str = "sample";

/// Why the in-kernel sampler does not work here.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object was refused: the kernel is too old, lacks BPF, or does not permit it.
    #[error("the kernel does not take the program: {0}")]
    Load(#[from] EbpfError),
    /// The program was refused by the verifier, or the event could not be opened.
    #[error("the kernel does not run the program: {0}")]
    Program(#[from] ProgramError),
    /// A map could not be read or written.
    #[error("the program's map: {0}")]
    Map(#[from] MapError),
    /// The object lacks something that is asked of it.
    #[error("the program has no {0}")]
    Missing(&'static str),
}

/// What the program counted itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How often it ran.
    pub events: u64,
    /// How often in a process that it was told nothing of.
    pub foreign: u64,
    /// Stacks that found the ring full.
    pub ring_full: u64,
    /// Names that found the ring full.
    pub names_lost: u64,
}

/// The loaded program. Everything of it is gone when this is dropped, or when this process ends.
pub struct KernelSampler {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    layouts: HashMap<MapData, u32, Layout>,
    threads: HashMap<MapData, u32, ThreadEntry>,
    counters: Array<MapData, u64>,
}

impl KernelSampler {
    /// Loads the program, which does nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(cpus: u32) -> Result<Self, BpfError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("stacks", cpus.max(1))
            .map_max_entries("names", cpus.max(1))
            .load(OBJECT)?;
        let program: &mut PerfEvent =
            ebpf.program_mut(PROGRAM).ok_or(BpfError::Missing(PROGRAM))?.try_into()?;
        program.load()?;
        Ok(KernelSampler {
            ring: RingBuf::try_from(take(&mut ebpf, "ring")?)?,
            layouts: HashMap::try_from(take(&mut ebpf, "layouts")?)?,
            threads: HashMap::try_from(take(&mut ebpf, "threads")?)?,
            counters: Array::try_from(take(&mut ebpf, "counters")?)?,
            ebpf,
        })
    }

    /// Tells the layout of a process.
    ///
    /// # Errors
    /// When there are too many processes.
    pub fn set_layout(&mut self, process: Pid, layout: &Layout) -> Result<(), BpfError> {
        Ok(self.layouts.insert(process.as_u32(), layout, 0)?)
    }

    /// Tells the thread state of a thread.
    ///
    /// # Errors
    /// When there are too many threads.
    pub fn set_thread(&mut self, thread: Tid, entry: &ThreadEntry) -> Result<(), BpfError> {
        Ok(self.threads.insert(thread.as_u32(), entry, 0)?)
    }

    /// Forgets a thread.
    pub fn forget_thread(&mut self, thread: Tid) {
        // It may never have been told.
        let _ = self.threads.remove(&thread.as_u32());
    }

    /// Has a thread sampled each time it has used so much CPU time, and the threads and children that it starts
    /// from now on as well.
    ///
    /// # Errors
    /// When the event is refused, or the thread has ended.
    pub fn attach(&mut self, thread: Tid, period: Nanos) -> Result<PerfEventLinkId, BpfError> {
        let program: &mut PerfEvent =
            self.ebpf.program_mut(PROGRAM).ok_or(BpfError::Missing(PROGRAM))?.try_into()?;
        let scope = PerfEventScope::OneProcess { pid: thread.as_u32(), cpu: None };
        let event = PerfEventConfig::Software(SoftwareEvent::CpuClock);
        Ok(program.attach(event, scope, SamplePolicy::Period(period.as_nanos()), true)?)
    }

    /// Hands what has been sent since the last time to `take`.
    pub fn read(&mut self, take: &mut dyn FnMut(Record<'_>)) {
        while let Some(item) = self.ring.next() {
            if let Some(record) = Record::parse(&item) {
                take(record);
            }
        }
    }

    /// What the program has counted.
    ///
    /// # Errors
    /// When its map cannot be read.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        let count = |index| self.counters.get(&index, 0);
        Ok(Counters { events: count(0)?, foreign: count(1)?, ring_full: count(2)?, names_lost: count(3)? })
    }

    /// The descriptor that can be waited on: it is ready when much has been sent.
    pub fn descriptor(&self) -> i32 {
        self.ring.as_raw_fd()
    }
}

impl std::fmt::Debug for KernelSampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelSampler").finish_non_exhaustive()
    }
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}
