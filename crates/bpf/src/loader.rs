//! Loads the program, registers processes and threads with it, and hands on what it sends.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, MapError, RingBuf};
use aya::programs::PerfEvent;
use aya::util::online_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use profiler_model::{Nanos, Pid, RemoteAddr, Tid, Timestamp};

use crate::clock_events::ClockEvents;
use crate::descriptor_calls::DescriptorCalls;
use crate::error::{BpfError, MAX_PROCESSES};
use crate::ids::{Ids, PidNamespace};
use crate::kept_records::KeptRecords;
use crate::layout::{CodeEpoch, Layout, MAX_RUNTIMES, ProcessEntry, Settings, ThreadEntry, code_key};
use crate::native::{NativeCounts, NativeEntry, NativeTally, NativeTotals};
use crate::records::Record;
use crate::task_layout::{self, TaskLayout};
use crate::wire::{ThreadLoss, counter};

/// The program as clang built it.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("program/python.bpf.o");

/// The program in the object, and the one that does the same by what older kernels have too (before Linux 5.17, which
/// brought `bpf_loop`). The first that the kernel takes is taken.
const PROGRAMS: [&str; 2] = ["sample", "sample_by_calls"];

/// What the program counted itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Stacks that found the ring full.
    pub ring_full: u64,
    /// Names that found the ring full.
    pub names_lost: u64,
}

/// What the ring had no room for of one thread, since the program was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLoss {
    /// The process.
    pub process: Pid,
    /// The thread.
    pub thread: Tid,
    /// How many records.
    pub count: u64,
    /// The time on a CPU for which the samples among them stand.
    pub weight: Nanos,
}

// SAFETY: numbers without gaps, for which every bit pattern is a value.
unsafe impl Pod for ThreadLoss {}

/// The loaded program. Everything of it is gone when this is dropped, or when this process ends.
pub struct KernelSampler {
    pub(crate) ebpf: Ebpf,
    ids: Ids,
    ring: RingBuf<MapData>,
    processes: HashMap<MapData, u32, ProcessEntry>,
    threads: HashMap<MapData, u32, ThreadEntry>,
    code_epochs: Array<MapData, CodeEpoch>,
    /// The registered processes. At the index of each lie the epochs of its runtimes.
    places: Vec<Option<Pid>>,
    settings: Array<MapData, Settings>,
    set: Settings,
    codes: Array<MapData, KnownCode>,
    counters: Array<MapData, u64>,
    losses: HashMap<MapData, u64, ThreadLoss>,
    native_ticks: HashMap<MapData, u64, NativeEntry>,
    native_tally: NativeTally,
    clock_events: Arc<Mutex<ClockEvents>>,
    kept: Option<Arc<Mutex<KeptRecords>>>,
}

/// How many code objects the program remembers (`CODE_SLOTS`).
const CODE_SLOTS: u64 = 65_536;

/// So much fits the ring (`ring`).
const RING_BYTES: usize = 4 << 20;

/// What it remembers of one: its hash, that its names were sent, and a proof of the hash.
type KnownCode = [u64; 3];

impl KernelSampler {
    /// Loads the program, which does nothing yet. With `kernel_frames` it also takes what threads do in the kernel. Ids are
    /// those of `namespace`, which is the one that we run in; `None` is the first one.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(cpus: u32, kernel_frames: bool, namespace: Option<PidNamespace>) -> Result<Self, BpfError> {
        let types = namespace.and_then(|_| task_layout::types_of_kernel().ok());
        let load = |ids| Self::load_with(cpus, kernel_frames, None, DescriptorCalls::default(), ids);
        match (load(Ids::within(namespace, types.as_deref())), namespace) {
            // Before Linux 5.10 it cannot be asked.
            (Err(BpfError::Namespace(_)), Some(namespace)) => load(Ids::ByHelper(namespace)),
            (loaded, _) => loaded,
        }
    }

    /// The same with the programs that look at the kernel's own threads, which are laid out so, and in these calls at
    /// what a descriptor is open on.
    pub(crate) fn load_with(
        cpus: u32,
        kernel_frames: bool,
        tasks: Option<TaskLayout>,
        descriptor_calls: DescriptorCalls,
        ids: Ids,
    ) -> Result<Self, BpfError> {
        let (id_source, namespace_device, namespace_inode, id_fields) = ids.constants();
        let watches_threads = u32::from(tasks.is_some());
        let takes_kernel_frames = u32::from(kernel_frames);
        let TaskLayout { task: task_fields, file } = tasks.unwrap_or_default();
        // Without its fields none is looked at.
        let (file_fields, calls) = file.map(|fields| (fields, descriptor_calls.0)).unwrap_or_default();
        let mut ebpf = EbpfLoader::new()
            // To have all of the kernel's types in memory takes 20 MB.
            .btf(None)
            .override_global("watches_threads", &watches_threads, true)
            .override_global("takes_kernel_frames", &takes_kernel_frames, true)
            .override_global("id_source", &id_source, true)
            .override_global("namespace_device", &namespace_device, true)
            .override_global("namespace_inode", &namespace_inode, true)
            .override_global("id_fields", &id_fields, true)
            .override_global("task_fields", &task_fields, true)
            .override_global("file_fields", &file_fields, true)
            .override_global("descriptor_calls", &calls, true)
            .map_max_entries("workspaces", cpus.max(1))
            .map_max_entries("names", cpus.max(1))
            .map_max_entries("clocks", cpus.max(1))
            .map_max_entries("sent_codes", cpus.max(1))
            .map_max_entries("periods", cpus.max(1))
            .load(OBJECT)?;
        ids.find_namespace(&mut ebpf)?;
        let program = load_program(&mut ebpf)?;
        let (periods, clocks) = (take(&mut ebpf, "periods")?, take(&mut ebpf, "clocks")?);
        let descriptor = program_descriptor(&mut ebpf, program)?;
        let events = ClockEvents::new(descriptor, Array::try_from(periods)?, Array::try_from(clocks)?);
        Ok(KernelSampler {
            ids,
            ring: RingBuf::try_from(take(&mut ebpf, "ring")?)?,
            processes: HashMap::try_from(take(&mut ebpf, "processes")?)?,
            threads: HashMap::try_from(take(&mut ebpf, "threads")?)?,
            code_epochs: Array::try_from(take(&mut ebpf, "code_epochs")?)?,
            places: vec![None; MAX_PROCESSES],
            settings: Array::try_from(take(&mut ebpf, "settings")?)?,
            set: Settings::default(),
            codes: Array::try_from(take(&mut ebpf, "codes")?)?,
            counters: Array::try_from(take(&mut ebpf, "counters")?)?,
            losses: HashMap::try_from(take(&mut ebpf, "losses")?)?,
            native_ticks: HashMap::try_from(take(&mut ebpf, "native_ticks")?)?,
            native_tally: NativeTally::default(),
            ebpf,
            clock_events: Arc::new(Mutex::new(events)),
            kept: None,
        })
    }

    /// Whether processes can be sampled that are in another PID namespace, within ours.
    pub fn sees_nested(&self) -> bool {
        self.ids.are_known_within()
    }

    /// How ids are found.
    pub(crate) fn ids(&self) -> Ids {
        self.ids
    }

    /// Registers a process. As long as it has no layout, all of its threads count as threads without Python, and need not be
    /// registered. A process that is registered already stays as it is.
    ///
    /// # Errors
    /// When there are too many processes.
    pub fn set_process(&mut self, process: Pid) -> Result<(), BpfError> {
        let place = self.place_for(process)?;
        let entry = self.registered(process)?;
        self.processes.insert(process.as_u32(), entry, 0)?;
        self.places[place] = Some(process);
        self.publish()
    }

    /// Registers a runtime of a process with its layout, or changes that. Runtimes are numbered from 0.
    ///
    /// # Errors
    /// When there are too many processes, or too many runtimes in this one ([`MAX_RUNTIMES`]).
    pub fn set_layout(&mut self, process: Pid, runtime: u8, layout: &Layout) -> Result<(), BpfError> {
        if usize::from(runtime) >= MAX_RUNTIMES {
            return Err(BpfError::TooManyRuntimes);
        }
        let place = self.place_for(process)?;
        let epoch_index = (place * MAX_RUNTIMES + usize::from(runtime)) as u32;
        self.code_epochs.set(epoch_index, CodeEpoch::default(), 0)?;
        let mut entry = self.registered(process)?;
        entry.set(runtime, Layout { epoch_index, ..*layout });
        self.processes.insert(process.as_u32(), entry, 0)?;
        self.places[place] = Some(process);
        self.publish()
    }

    /// Whether more than half of the processes that can be registered are not.
    pub fn has_spare_places(&self) -> bool {
        self.places.iter().filter(|place| place.is_none()).count() > MAX_PROCESSES / 2
    }

    /// Where the epochs of a process lie, or can lie if it is not registered yet.
    fn place_for(&self, process: Pid) -> Result<usize, BpfError> {
        let place_of = |wanted| self.places.iter().position(|there| *there == wanted);
        place_of(Some(process)).or_else(|| place_of(None)).ok_or(BpfError::TooManyProcesses)
    }

    /// The registration of a process as it is; empty if it is not registered.
    fn registered(&self, process: Pid) -> Result<ProcessEntry, BpfError> {
        match self.processes.get(&process.as_u32(), 0) {
            Ok(entry) => Ok(entry),
            Err(MapError::KeyNotFound) => Ok(ProcessEntry::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets a process with all of its runtimes.
    pub fn forget_process(&mut self, process: Pid) {
        // It may never have been registered.
        let _ = self.processes.remove(&process.as_u32());
        self.places.iter_mut().filter(|there| **there == Some(process)).for_each(|there| *there = None);
        let _ = self.publish();
    }

    /// Has the program look up anew what it has looked up of processes and threads.
    fn publish(&mut self) -> Result<(), BpfError> {
        self.set.generation += 1;
        Ok(self.settings.set(0, self.set, 0)?)
    }

    /// Registers a thread with its thread states, or changes them. A thread without Python has none (`ThreadEntry::default()`).
    ///
    /// # Errors
    /// When there are too many threads.
    pub fn set_thread(&mut self, thread: Tid, entry: &ThreadEntry) -> Result<(), BpfError> {
        self.threads.insert(thread.as_u32(), entry, 0)?;
        self.publish()
    }

    /// Forgets a thread.
    pub fn forget_thread(&mut self, thread: Tid) {
        // It may never have been registered.
        let _ = self.threads.remove(&thread.as_u32());
        let _ = self.publish();
    }

    /// Has the names of this code object sent again when it is met next.
    pub fn ask_for_names(&mut self, process: Pid, code: RemoteAddr) {
        let slot = (code_key(process.as_u32(), code.as_u64()) >> 32) & (CODE_SLOTS - 1);
        // Should it fail, the code stays without names, and its samples are counted as lost.
        let _ = self.codes.set(slot as u32, KnownCode::default(), 0);
    }

    /// Has every CPU that is online run the program after each `period`; those that have come online since the last
    /// call as well.
    ///
    /// # Errors
    /// When an event is refused.
    pub fn tick(&mut self, period: Nanos) -> Result<(), BpfError> {
        let online = online_cpus().map_err(|(_, error)| BpfError::Cpus(error))?;
        let mut events = lock(&self.clock_events);
        let ticking = events.cpus();
        // An event does not come back with its CPU.
        ticking.iter().filter(|cpu| !online.contains(cpu)).for_each(|cpu| events.stop(*cpu));
        for cpu in online.into_iter().filter(|cpu| !ticking.contains(cpu)) {
            events.start(cpu, period)?;
        }
        Ok(())
    }

    /// The events by which it is run, whose periods can be changed while this is used.
    pub fn clock_events(&self) -> Arc<Mutex<ClockEvents>> {
        self.clock_events.clone()
    }

    /// Lets the program rest.
    pub fn stop_ticking(&mut self) {
        lock(&self.clock_events).stop_all();
    }

    /// Hands what has been sent since the last time to `take`; of what comes meanwhile no more than fits the ring once, so
    /// that this ends however fast the program sends. After its end nothing is left.
    pub fn read(&mut self, take: &mut dyn FnMut(Record<'_>)) {
        let mut taken = 0;
        while taken < RING_BYTES
            && let Some(item) = self.ring.next()
        {
            taken += item.len();
            if let Some(kept) = &self.kept {
                kept.lock().unwrap_or_else(PoisonError::into_inner).keep(&item);
            }
            if let Some(record) = Record::parse(&item) {
                take(record);
            }
        }
    }

    /// Keeps a copy of the records that are read from now on, of at most `most` bytes in all, in the returned place.
    pub fn keep_records(&mut self, most: usize) -> Arc<Mutex<KeptRecords>> {
        let kept = Arc::new(Mutex::new(KeptRecords::new(most)));
        self.kept = Some(Arc::clone(&kept));
        kept
    }

    /// What the program has counted.
    ///
    /// # Errors
    /// When its map cannot be read.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        let count = |index| self.counters.get(&index, 0);
        Ok(Counters { ring_full: count(counter::RING_FULL)?, names_lost: count(counter::NAMES_LOST)? })
    }

    /// What the ring had no room for, by thread: of very many, those that lost something last.
    pub fn losses(&self) -> Vec<RingLoss> {
        let known = self.losses.iter().filter_map(Result::ok);
        let of_ids = |(ids, loss): (u64, ThreadLoss)| RingLoss {
            process: Pid::new((ids >> 32) as u32),
            thread: Tid::new(ids as u32),
            count: loss.count,
            weight: Nanos::from_nanos(loss.weight),
        };
        known.map(of_ids).collect()
    }

    /// Takes the ticks that met threads without Python since the last time: those of processes without a layout
    /// ([`KernelSampler::set_process`]), and of threads that are registered without a thread state. Takes some
    /// microseconds for each thread that ran, or had run the time before.
    ///
    /// # Errors
    /// When the program's maps cannot be read. Then nothing is taken.
    pub fn take_native_ticks(&mut self) -> Result<NativeCounts, BpfError> {
        let count = |index| self.counters.get(&index, 0);
        let totals =
            NativeTotals { ticks: count(counter::NATIVE_TICKS)?, weight: count(counter::NATIVE_WEIGHT)? };
        if self.native_tally.is_done(totals) {
            return Ok(NativeCounts::default());
        }
        let entries: Vec<_> = self.native_ticks.iter().collect::<Result<_, MapError>>()?;
        let (counts, unchanged) = self.native_tally.take(totals, &entries);
        for ids in unchanged {
            // It may be gone already.
            let _ = self.native_ticks.remove(&ids);
        }
        Ok(counts)
    }

    /// Has no tick after `end` count that meets a thread without Python.
    ///
    /// # Errors
    /// When the program's map cannot be written.
    pub fn end_native_ticks(&mut self, end: Timestamp) -> Result<(), BpfError> {
        self.set.end = end.as_nanos();
        Ok(self.settings.set(0, self.set, 0)?)
    }

    /// The number of ticks that interrupted a registered process.
    ///
    /// # Errors
    /// When its map cannot be read.
    pub fn events(&self) -> Result<u64, BpfError> {
        lock(&self.clock_events).found()
    }

    /// The descriptor that can be waited on: it is ready when much has been sent.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl std::fmt::Debug for KernelSampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelSampler").finish_non_exhaustive()
    }
}

/// Has the kernel take the program; returns which.
fn load_program(ebpf: &mut Ebpf) -> Result<&'static str, BpfError> {
    let mut refusal = None;
    for name in PROGRAMS {
        let program: &mut PerfEvent = ebpf.program_mut(name).ok_or(BpfError::Missing(name))?.try_into()?;
        match program.load() {
            Ok(()) => return Ok(name),
            Err(error) => refusal = Some(BpfError::from(error)),
        }
        // Who may not load one may not load the other.
        if refusal.as_ref().is_some_and(BpfError::is_permission) {
            break;
        }
    }
    Err(refusal.unwrap_or(BpfError::Missing(PROGRAMS[0])))
}

/// The descriptor of a program that is loaded, to attach it by.
fn program_descriptor(ebpf: &mut Ebpf, name: &'static str) -> Result<std::os::fd::OwnedFd, BpfError> {
    let program: &mut PerfEvent = ebpf.program_mut(name).ok_or(BpfError::Missing(name))?.try_into()?;
    program.fd()?.as_fd().try_clone_to_owned().map_err(|error| BpfError::Event("dup", error))
}

/// Whoever panicked with it left it whole: each event is there or not.
fn lock(events: &Mutex<ClockEvents>) -> MutexGuard<'_, ClockEvents> {
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}
