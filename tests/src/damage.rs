//! Memory that lies: a stored snapshot with some words changed, as a string of bytes says. The tests take
//! these bytes from a generator of random numbers, the fuzzer from what it has learnt.

use std::cell::Cell;

use anyhow::{Result, ensure};
use profiler_memory::{ReadError, ReadMemory, Snapshot};
use profiler_model::RemoteAddr;

/// Bytes of one change: its kind, a place and a value.
pub const CHANGE_BYTES: usize = 13;

/// The most bytes that any single read may ask for: the limit of the longest table.
const MAX_BYTES_AT_ONCE: usize = profiler_python::MAX_LINE_TABLE_BYTES;

/// The most reads of one survey. An unharmed process of the stored kind takes under a thousand. A lie can make
/// lists longer only as far as there is memory that looks like their items, of which a snapshot has little;
/// a circle that is followed to a limit of its own takes more.
const MAX_READS: u64 = 20_000;

/// The most bytes that one survey may ask for, whether it gets them or not.
const MAX_BYTES: u64 = 1 << 30;

/// Values that lengths and pointers are told to have.
const LIES: [u64; 14] = [
    0,
    1,
    2,
    7,
    u64::MAX,
    u64::MAX - 7,
    i64::MAX as u64,
    i64::MIN as u64,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 20,
    4096,
    0x0000_7FFF_FFFF_FFF8,
    0xFFFF_8000_0000_0000,
];

/// A snapshot that can be damaged again and again.
#[derive(Debug)]
pub struct Damage {
    whole: Snapshot,
    /// The words that were stored, as opposed to the zeros around them.
    words: Vec<RemoteAddr>,
    /// Those of them that point to something stored.
    pointers: Vec<RemoteAddr>,
}

impl Damage {
    /// Of what was stored.
    pub fn of(stored: &Snapshot) -> Self {
        let words = stored.ranges().flat_map(|(start, bytes)| {
            let first = start.as_u64().next_multiple_of(8);
            let end = start.as_u64() + bytes.len() as u64;
            (first..end.saturating_sub(7)).step_by(8).map(RemoteAddr::new)
        });
        let words: Vec<RemoteAddr> = words.collect();
        let points = |at: &RemoteAddr| {
            let target = stored.scalar::<RemoteAddr>(*at).unwrap_or_default();
            stored.scalar::<u8>(target.without_tag(3)).is_ok()
        };
        let pointers = words.iter().copied().filter(points).collect();
        Damage { words, pointers, whole: stored.with_whole_pages() }
    }

    /// The memory with the changes that these bytes ask for.
    pub fn by(&self, changes: &[u8]) -> Snapshot {
        let mut memory = self.whole.clone();
        for change in changes.as_chunks::<CHANGE_BYTES>().0 {
            let [kind, a, b, c, d, value @ ..] = *change;
            let place = u32::from_le_bytes([a, b, c, d]).into();
            self.change(&mut memory, kind, place, u64::from_le_bytes(value));
        }
        memory
    }

    fn change(&self, memory: &mut Snapshot, kind: u8, place: u64, value: u64) {
        let some = |of: &[RemoteAddr], index: u64| of[(index % of.len() as u64) as usize];
        let word = |memory: &Snapshot, at| memory.scalar::<u64>(at).unwrap_or(0);
        let at = some(if kind.is_multiple_of(2) { &self.pointers } else { &self.words }, place);
        let old = word(memory, at);
        let new = match kind / 2 % 8 {
            0 => old ^ 1 << (value % 64),
            1 => LIES[(value % LIES.len() as u64) as usize],
            // A small change of a length, or a pointer into its neighbour.
            2 => old.wrapping_add_signed(i64::from(value as i8)),
            // Circles, and objects of the wrong kind: where something else points to, or itself.
            3 => word(memory, some(&self.pointers, value)),
            4 => some(&self.words, value).as_u64(),
            5 => at.as_u64().wrapping_sub(value % 512),
            6 => value,
            _ => return memory.remove(at, (value % 4096) as usize),
        };
        memory.overwrite(at, &new.to_le_bytes());
    }
}

/// Memory that does not let itself be read without end: beyond the limits it panics, and so fails the test.
#[derive(Debug)]
pub struct Limited<M> {
    memory: M,
    reads: Cell<u64>,
    bytes: Cell<u64>,
}

impl<M: ReadMemory> Limited<M> {
    /// Limits for one survey of `memory`.
    pub fn new(memory: M) -> Self {
        Limited { memory, reads: Cell::new(0), bytes: Cell::new(0) }
    }
}

impl<M: ReadMemory> ReadMemory for Limited<M> {
    fn read(&self, at: RemoteAddr, into: &mut [u8]) -> Result<(), ReadError> {
        self.reads.set(self.reads.get() + 1);
        self.bytes.set(self.bytes.get() + into.len() as u64);
        assert!(into.len() <= MAX_BYTES_AT_ONCE, "{} bytes in one read", into.len());
        assert!(self.reads.get() <= MAX_READS, "more than {MAX_READS} reads");
        assert!(self.bytes.get() <= MAX_BYTES, "more than {MAX_BYTES} bytes");
        self.memory.read(at, into)
    }
}

/// SplitMix64: random numbers that are the same in every run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Up to `most` changes for [`Damage::by`].
    fn changes(&mut self, most: u64) -> Vec<u8> {
        let count = 1 + self.number() % most;
        let bytes = std::iter::repeat_with(|| self.number().to_le_bytes()).flatten();
        bytes.take(count as usize * CHANGE_BYTES).collect()
    }
}

/// How stored memory is damaged.
#[derive(Clone, Copy, Debug)]
pub struct DamagePlan {
    /// How often.
    pub rounds: u64,
    /// How many words at most in a round.
    pub most_changes: u64,
    /// Where the random numbers start.
    pub seed: u64,
}

impl DamagePlan {
    /// Reads damaged memory again and again; `read` gets a random number, too. What is read must be something else most of
    /// the time: otherwise the damage would not hit what is read.
    ///
    /// # Errors
    /// When it mostly is the same.
    ///
    /// # Panics
    /// When memory is read without end, or `read` panics.
    pub fn carry_out<T: PartialEq>(
        &self,
        stored: &Snapshot,
        read: impl Fn(&Limited<Snapshot>, u64) -> T,
    ) -> Result<()> {
        let damage = Damage::of(stored);
        let whole = read(&Limited::new(damage.by(&[])), 0);
        let (mut random, mut unlike) = (Random::new(self.seed), 0);
        for _ in 0..self.rounds {
            let memory = Limited::new(damage.by(&random.changes(self.most_changes)));
            unlike += u64::from(read(&memory, random.number()) != whole);
        }
        ensure!(unlike > self.rounds / 2, "only {unlike} of {} are different", self.rounds);
        Ok(())
    }
}
