//! Which kernel threads thread states get, and when lists are read again.

use profiler_memory::Snapshot;
use profiler_model::{InterpreterId, NsTid};
use profiler_python::{Version, offsets_for};

use super::*;

const INTERPRETER: RemoteAddr = RemoteAddr::new(0x1000);
/// Where the C library's descriptors have the kernel's id.
const ID_AT: usize = 720;

fn state(address: u64, pthread_id: u64, native_id: Option<u32>) -> PyThreadState {
    PyThreadState {
        address: RemoteAddr::new(address),
        interpreter: INTERPRETER,
        pthread_id,
        native_id: native_id.map(NsTid::new),
    }
}

/// Memory with a descriptor for each `pthread_self()`, which says that it is that thread.
fn descriptors(threads: &[(u64, u32)]) -> Snapshot {
    let mut memory = Snapshot::new();
    for (pthread, tid) in threads {
        let mut descriptor = vec![0u8; 1024];
        descriptor[ID_AT..ID_AT + 4].copy_from_slice(&tid.to_le_bytes());
        memory.insert(RemoteAddr::new(*pthread), &descriptor);
    }
    memory
}

fn places(
    alive: &[u32],
    memory: &Snapshot,
    states: &[PyThreadState],
    last_holder: u64,
) -> Vec<ThreadPlacement> {
    let here = alive.iter().map(|id| (NsTid::new(*id), Tid::new(*id))).collect();
    let found: Vec<_> = states.iter().map(|state| (0, *state)).collect();
    let ids = ThreadIds::among(here, memory, &found, &[RemoteAddr::new(last_holder)]);
    states.iter().map(|state| ids.kernel_thread(state)).collect()
}

#[test]
fn thread_id_of_the_parent_gives_way_to_the_c_librarys() {
    let memory = descriptors(&[(0x10_000, 200), (0x20_000, 0)]);
    let states = [state(1, 0x20_000, Some(101)), state(2, 0x10_000, Some(100))];
    let thread = ThreadPlacement::Thread(Tid::new(200));
    assert_eq!(places(&[200], &memory, &states, 0), [ThreadPlacement::Gone, thread], "forked by C code");
    let states = [state(2, 0x10_000, Some(200))];
    assert_eq!(places(&[200], &memory, &states, 0), [thread], "known to CPython");
}

#[test]
fn only_kernel_thread_runs_the_last_holder_of_the_gil() {
    let memory = descriptors(&[(0x10_000, 100), (0x20_000, 101)]);
    let states = [state(1, 0x20_000, Some(101)), state(2, 0x10_000, Some(100))];
    let thread = ThreadPlacement::Thread(Tid::new(200));
    assert_eq!(places(&[200], &memory, &states, 2), [ThreadPlacement::Gone, thread]);
    assert_eq!(places(&[200], &memory, &states[1..], 7), [thread], "there is no other one");
    assert_eq!(
        places(&[200, 201], &memory, &states, 2),
        [ThreadPlacement::Unknown, ThreadPlacement::Unknown]
    );
}

#[test]
fn thread_between_two_calls_stays_and_is_met_again() {
    let pid = Pid::new(std::process::id());
    let tid = own_tid();
    let at = Timestamp::from_nanos;
    let mut thread_table = ThreadTable::default();
    thread_table.interpreters.push(Interpreter {
        address: INTERPRETER,
        id: InterpreterId::new(0),
        gil: None,
        gc_collecting: None,
        code_count: None,
        threads_head: RemoteAddr::new(0),
    });
    let here = || HashMap::from([(NsTid::new(tid.as_u32()), tid)]);
    let take = |thread_table: &mut ThreadTable, states: &[PyThreadState], now: u64| {
        let found: Vec<_> = states.iter().map(|state| (0, *state)).collect();
        let ids = ThreadIds::among(here(), &Snapshot::new(), &found, &[]);
        thread_table.take_lists(pid, &ids, found, at(now));
    };
    let known = |thread_table: &ThreadTable| {
        let threads = thread_table.threads().iter();
        threads.map(|one| (one.is_listed, one.python.address.as_u64(), one.met.0)).collect::<Vec<_>>()
    };
    take(&mut thread_table, &[state(1, 0x10_000, Some(tid.as_u32()))], 5);
    assert_eq!(known(&thread_table), [(true, 1, at(5))]);
    take(&mut thread_table, &[], 6);
    assert_eq!(known(&thread_table), [(false, 1, at(5))], "between two calls");
    take(&mut thread_table, &[state(2, 0x10_000, Some(tid.as_u32()))], 7);
    assert_eq!(known(&thread_table), [(true, 2, at(5))], "its time is counted on");
    let ids = ThreadIds::among(HashMap::new(), &Snapshot::new(), &[], &[]);
    thread_table.take_lists(pid, &ids, Vec::new(), at(8));
    assert_eq!(known(&thread_table), [], "its kernel thread has ended");
}

/// The kernel thread that runs this.
fn own_tid() -> Tid {
    let link = std::fs::read_link("/proc/thread-self").unwrap();
    Tid::new(link.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

const CFRAME: u64 = 0x5000;

/// A thread state with the ids of thread 7, as it was when the list was read.
fn state_at(address: u64) -> (usize, PyThreadState) {
    let python = PyThreadState {
        address: RemoteAddr::new(address),
        interpreter: RemoteAddr::new(0x100),
        pthread_id: 7,
        native_id: None,
    };
    (0, python)
}

/// Puts a thread state into memory, with a frame or without one.
fn put_state(memory: &mut Snapshot, offsets: &Offsets, address: u64, pthread_id: u64, frame: u64) {
    let mut bytes = vec![0u8; offsets.thread.size as usize];
    let mut put = |at: u32, value: u64| {
        bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    };
    put(offsets.thread.interpreter.offset(), 0x100);
    put(offsets.thread.thread_id.offset(), pthread_id);
    let cframe = offsets.thread.cframe_current_frame.map(|current| (current.offset(), CFRAME + address));
    put(offsets.thread.frame.offset(), cframe.map_or(frame, |(_, cframe)| cframe));
    memory.insert(RemoteAddr::new(address), &bytes);
    if let Some((current_frame, cframe)) = cframe {
        let mut bytes = vec![0u8; current_frame as usize];
        bytes.extend(frame.to_le_bytes());
        memory.insert(RemoteAddr::new(cframe), &bytes);
    }
}

#[test]
fn unstarted_thread_does_not_hide_its_creator() {
    for minor in [8, 11] {
        let mut offsets = offsets_for(Version { major: 3, minor, micro: 0, release: 0xF0 }).unwrap();
        // Up to 3.10 there is no such field; where there is one, it is compared as well.
        offsets.thread.native_thread_id = None;
        let mut memory = Snapshot::new();
        put_state(&mut memory, &offsets, 0x1000, 7, 0x9000);
        let kept = |memory: &Snapshot| {
            let found = vec![state_at(0x2000), state_at(0x1000)];
            let kept = without_unstarted(found, memory, &offsets);
            kept.iter().map(|(_, state)| state.address.as_u64()).collect::<Vec<_>>()
        };
        put_state(&mut memory, &offsets, 0x2000, 7, 0);
        assert_eq!(kept(&memory), [0x1000], "3.{minor}: not started");
        let mut memory = Snapshot::new();
        put_state(&mut memory, &offsets, 0x1000, 7, 0x9000);
        put_state(&mut memory, &offsets, 0x2000, 8, 0x9500);
        assert_eq!(kept(&memory), [0x1000], "3.{minor}: started since the list was read");
        let mut memory = Snapshot::new();
        put_state(&mut memory, &offsets, 0x1000, 7, 0x9000);
        put_state(&mut memory, &offsets, 0x2000, 7, 0x9500);
        assert_eq!(kept(&memory), [0x2000, 0x1000], "3.{minor}: one thread runs in both");
    }
}

#[test]
fn missing_kernel_threads_are_looked_for_ever_more_rarely() {
    let at = Timestamp::from_nanos;
    let mut thread_table = ThreadTable::default();
    thread_table.plan_recheck(true, false, at(0));
    assert!(!thread_table.is_recheck_due(at(u64::MAX)));
    thread_table.plan_recheck(false, false, at(0));
    assert!(!thread_table.is_recheck_due(at(999_999)) && thread_table.is_recheck_due(at(1_000_000)));
    for _ in 0..20 {
        thread_table.plan_recheck(false, true, at(0));
    }
    assert!(!thread_table.is_recheck_due(at(999_999_999)) && thread_table.is_recheck_due(at(1_000_000_000)));
    thread_table.plan_recheck(false, false, at(0));
    assert!(thread_table.is_recheck_due(at(1_000_000)), "other lists, another thread to wait for");
}
