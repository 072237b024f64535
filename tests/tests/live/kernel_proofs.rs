//! Which code object a frame had, as the in-kernel program reports it: by a hash, or by a proof that it is still the one whose
//! hash came before. The program walks through frames that this test has made by hand, so that it is known when one object takes
//! the place of another.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use nix::unistd::gettid;
use profiler_bpf::{KernelSampler, Layout, NO_OFFSET, Record, StateEntry, ThreadEntry};
use profiler_model::{Nanos, Pid, RemoteAddr, Tid, Timestamp};
use profiler_os::clock;
use profiler_tests::suite::{Sampler, Test};
use profiler_tests::test;

const FRAMES: usize = 10;

/// Words of a thread state, a frame and a code object, and what stands where.
const THREAD_WORDS: usize = 4;
const FRAME_WORDS: usize = 4;
const CODE_WORDS: usize = 24;
const NAME_AT: u32 = 64;
const FRAME_AT: u32 = 16;
const OTHER_FRAME_AT: u32 = 24;

const INTERPRETER: u64 = 0x1111_0000;
const THREAD_ID: u64 = 0x2222_0000;

/// Ticks may be missing for as long as another program has the CPU: what was found until then proves nothing any more, so
/// that a few stacks are seen that could have been proved.
const STACKS: usize = 200;

const OFTEN: Nanos = Nanos::from_nanos(500_000);

/// As often as the kernel lets a clock tick: soon stacks find no room.
const TOO_OFTEN: Nanos = Nanos::from_nanos(20_000);

/// A thread of this process that looks like one of an interpreter.
struct Subject {
    thread: Vec<AtomicU64>,
    frames: Vec<AtomicU64>,
    codes: Vec<AtomicU64>,
    count: Box<AtomicU64>,
    /// The last holder of its GIL, and whether that is locked.
    gil: Vec<AtomicU64>,
    /// Where its thread state has its frame.
    frame_at: u32,
}

/// Other threads of this process are met as well, if other tests run in it.
fn own_thread() -> Tid {
    Tid::new(gettid().as_raw().cast_unsigned())
}

fn words(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::SeqCst);
}

fn address(words: &[AtomicU64]) -> u64 {
    words.as_ptr().addr() as u64
}

impl Subject {
    /// One whose thread states have their frame at this offset.
    fn new(frame_at: u32) -> Self {
        let subject = Subject {
            thread: words(THREAD_WORDS),
            frames: words(FRAMES * FRAME_WORDS),
            codes: words(FRAMES * CODE_WORDS),
            count: Box::new(AtomicU64::new(7)),
            gil: words(2),
            frame_at,
        };
        set(&subject.thread[0], INTERPRETER);
        set(&subject.thread[1], THREAD_ID);
        set(&subject.thread[frame_at as usize / 8], address(&subject.frames));
        for number in 0..FRAMES {
            let frame = &subject.frames[number * FRAME_WORDS..];
            if number + 1 < FRAMES {
                set(&frame[0], address(&frame[FRAME_WORDS..]));
            }
            let code = &subject.codes[number * CODE_WORDS..];
            set(&frame[1], address(code));
            set(&code[0], number as u64 + 1);
            // Its name, file and line table: whatever lies there.
            let names = &code[NAME_AT as usize / 8..];
            (0..3).for_each(|place| set(&names[place], address(code)));
        }
        subject
    }

    fn layout(&self) -> Layout {
        Layout {
            thread_size: THREAD_WORDS as u32 * 8,
            thread_interpreter: 0,
            thread_id: 8,
            thread_frame: self.frame_at,
            cframe_current_frame: NO_OFFSET,
            thread_base_frame: NO_OFFSET,
            frame_size: FRAME_WORDS as u32 * 8,
            frame_previous: 0,
            frame_code: 8,
            frame_instruction: 16,
            frame_owner: NO_OFFSET,
            frame_is_entry: NO_OFFSET,
            frame_bytecode_copy: NO_OFFSET,
            head_start: 0,
            head_length: 16,
            code_name: NAME_AT,
            code_qualname: NO_OFFSET,
            code_filename: NAME_AT + 8,
            code_line_table: NAME_AT + 16,
            bytes_length: 128,
            code_mask: u64::MAX,
            code_count_size: 8,
            ..Layout::default()
        }
    }

    /// The thread state of the thread that calls this, as one of a runtime.
    fn state(&self, runtime: u8) -> StateEntry {
        StateEntry {
            state: address(&self.thread),
            interpreter: INTERPRETER,
            thread_id: THREAD_ID,
            gil_last_holder: address(&self.gil),
            gil_locked: address(&self.gil[1..]),
            code_count: std::ptr::from_ref(&*self.count).addr() as u64,
            first_state: 0,
            runtime: runtime.into(),
        }
    }

    /// Has its thread state hold its GIL, or not.
    fn set_holds_gil(&self, holds: bool) {
        set(&self.gil[0], address(&self.thread));
        set(&self.gil[1], holds.into());
    }

    fn has_code(&self, code: RemoteAddr) -> bool {
        let start = address(&self.codes);
        (start..start + 8 * self.codes.len() as u64).contains(&code.as_u64())
    }

    /// Registers the thread that calls this with the program.
    fn register(&self, kernel: &mut KernelSampler) -> Result<()> {
        kernel.set_layout(Pid::new(std::process::id()), 0, &self.layout())?;
        Ok(kernel.set_thread(own_thread(), &ThreadEntry::new([self.state(0)]))?)
    }

    /// The program, sampling the thread that calls this.
    fn sampled(&self, period: Nanos) -> Result<KernelSampler> {
        let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
        self.register(&mut kernel)?;
        kernel.tick(period)?;
        Ok(kernel)
    }

    /// Puts another code object in the place of the leaf's, as an interpreter does: the old one is freed first.
    fn replace_leaf(&self) -> Timestamp {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.codes[0].fetch_add(1000, Ordering::SeqCst);
        clock::now()
    }
}

/// What has come so far.
#[derive(Default)]
struct Received {
    /// The hash that came last of each code object, by proof.
    hashes: HashMap<(RemoteAddr, NonZeroU64), NonZeroU64>,
    stacks: usize,
    by_proof: usize,
    /// The hashes of the leaf and when they were met.
    leaves: Vec<(Timestamp, NonZeroU64)>,
}

impl Received {
    /// Takes what has come; each frame has a hash, or a proof under which one came.
    fn take(&mut self, kernel: &mut KernelSampler) -> Result<()> {
        let own = own_thread();
        let mut result = Ok(());
        kernel.read(&mut |record| {
            if let Record::Stack(stack) = record
                && stack.thread() == own
                && result.is_ok()
            {
                self.stacks += 1;
                let frames: Vec<_> = stack.frames().collect();
                for (number, frame) in frames.iter().enumerate() {
                    match self.hash(frame.code, frame.head_hash, stack.proof()) {
                        Ok(hash) if number == 0 => self.leaves.push((stack.time(), hash)),
                        Ok(_) => {}
                        Err(error) => result = Err(error),
                    }
                }
                if frames.len() != FRAMES {
                    result = Err(anyhow::anyhow!("{} frames, {:?}", frames.len(), stack.outcome()));
                }
            }
        });
        result
    }

    fn hash(
        &mut self,
        code: RemoteAddr,
        hash: Option<NonZeroU64>,
        proof: Option<NonZeroU64>,
    ) -> Result<NonZeroU64> {
        let key = proof.map(|proof| (code, proof));
        if let Some(hash) = hash {
            if let Some(key) = key {
                self.hashes.insert(key, hash);
            }
            return Ok(hash);
        }
        self.by_proof += 1;
        let key = key.context("neither a hash nor a proof")?;
        self.hashes.get(&key).copied().with_context(|| format!("no hash of {code} came under its proof"))
    }
}

/// Runs on until `enough`, and takes what comes meanwhile.
fn run_until(
    kernel: &mut KernelSampler,
    received: &mut Received,
    enough: impl Fn(&Received) -> bool,
) -> Result<()> {
    while !enough(received) {
        received.take(kernel)?;
    }
    Ok(())
}

fn proof_stands_for_the_hash_sent_under_it() -> Result<()> {
    let subject = Subject::new(FRAME_AT);
    let mut kernel = subject.sampled(OFTEN)?;
    let mut received = Received::default();
    run_until(&mut kernel, &mut received, |received| received.stacks >= STACKS && received.by_proof > 0)?;
    let before = received.leaves.last().context("nothing came")?.1;
    let replaced = subject.replace_leaf();
    let came = received.stacks;
    run_until(&mut kernel, &mut received, |received| received.stacks >= came + STACKS)?;
    let after = received.leaves.iter().filter(|(at, _)| *at > replaced);
    let wrong = after.clone().filter(|(_, hash)| *hash == before).count();
    ensure!(after.count() > 0, "nothing came after the leaf was replaced");
    ensure!(wrong == 0, "{wrong} stacks with a code object that was gone");
    Ok(())
}

fn stacks_without_room_prove_nothing() -> Result<()> {
    let subject = Subject::new(FRAME_AT);
    let mut kernel = subject.sampled(TOO_OFTEN)?;
    let mut received = Received::default();
    for _ in 0..2 {
        let lost = kernel.counters()?.ring_full;
        while kernel.counters()?.ring_full == lost {
            std::hint::spin_loop();
        }
        // Meanwhile others are met, of which nothing arrives.
        subject.replace_leaf();
        let lost = kernel.counters()?.ring_full;
        while kernel.counters()?.ring_full < lost + 100 {
            std::hint::spin_loop();
        }
        let came = received.stacks;
        run_until(&mut kernel, &mut received, |received| received.stacks >= came + 10 * STACKS)?;
    }
    ensure!(received.by_proof > 0, "nothing was proved");
    Ok(())
}

/// The first stack of this thread from now on: its runtime, and whether all of its frames are of the subject. Meanwhile each
/// code object must be named as one of its own runtime.
fn next_is_of(kernel: &mut KernelSampler, subjects: &[Subject; 2]) -> Result<(u8, [bool; 2])> {
    let (own, now) = (own_thread(), clock::now());
    let mut found = None;
    let mut result = Ok(());
    while found.is_none() && result.is_ok() {
        kernel.read(&mut |record| match record {
            Record::Names(names) if !subjects[usize::from(names.runtime())].has_code(names.code()) => {
                result = Err(anyhow::anyhow!("{} is not of runtime {}", names.code(), names.runtime()));
            }
            Record::Stack(stack) if stack.thread() == own && stack.time() > now && found.is_none() => {
                let codes: Vec<RemoteAddr> = stack.frames().map(|frame| frame.code).collect();
                let is_all_of = |subject: &Subject| {
                    codes.len() == FRAMES && codes.iter().all(|code| subject.has_code(*code))
                };
                found = Some((stack.runtime(), subjects.each_ref().map(is_all_of)));
            }
            _ => {}
        });
    }
    result?;
    found.context("no stack")
}

fn stack_is_of_the_runtime_that_runs() -> Result<()> {
    let subjects = [Subject::new(FRAME_AT), Subject::new(OTHER_FRAME_AT)];
    let [first, second] = &subjects;
    let process = Pid::new(std::process::id());
    let mut kernel = KernelSampler::load(clock::cpus(), false, None)?;
    kernel.set_layout(process, 0, &first.layout())?;
    kernel.set_layout(process, 1, &second.layout())?;
    ensure!(kernel.set_layout(process, 2, &first.layout()).is_err(), "there is no room for a third one");
    kernel.set_thread(own_thread(), &ThreadEntry::new([first.state(0), second.state(1)]))?;
    kernel.tick(OFTEN)?;
    for _ in 0..20 {
        ensure!(next_is_of(&mut kernel, &subjects)? == (0, [true, false]), "the youngest is the first");
        second.set_holds_gil(true);
        ensure!(next_is_of(&mut kernel, &subjects)? == (1, [false, true]), "the second holds its GIL");
        second.set_holds_gil(false);
    }
    Ok(())
}

/// The tests of this module.
pub fn tests() -> Vec<Test> {
    vec![
        test!(proof_stands_for_the_hash_sent_under_it).by(&[Sampler::Bpf]),
        test!(stack_is_of_the_runtime_that_runs).by(&[Sampler::Bpf]),
        test!(stacks_without_room_prove_nothing).by(&[Sampler::Bpf]),
    ]
}
