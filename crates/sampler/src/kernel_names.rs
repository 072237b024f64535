//! What the kernel's functions are called while its code changes: modules and programs come and go during a recording. A
//! name is only given where it is proved that the function was there at the instant of the sample. What becomes of names
//! is for `kernel_frames`.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use profiler_model::{Nanos, Timestamp};
use profiler_os::{KernelSymbol, KernelSymbols, KernelSymbolsError, LoadedCode, clock};

/// How many frames of the kernel the program takes at most (`MAX_KERNEL_FRAMES`): a stack of so many may have more.
const MOST_FRAMES: usize = 127;

/// All symbols are read again at most so often: that takes some hundredths of a second of CPU time.
const READING_GAP: Nanos = Nanos::from_nanos(5_000_000_000);

/// What the kernel calls the code of programs that were attached to it, and how their own functions begin. The rest of it
/// is made when programs are attached, and goes without the list of programs telling so.
const PROGRAMS: &str = "bpf";
const OF_PROGRAMS: &str = "bpf_prog_";

/// What the kernel says of itself.
trait Source: std::fmt::Debug + Send {
    fn symbols(&self) -> Result<KernelSymbols, KernelSymbolsError>;
    fn loaded(&self) -> LoadedCode;
    fn now(&self) -> Timestamp;
}

/// The names of the kernel's functions, as far as it shows them. All copies are the same.
#[derive(Clone, Debug)]
pub struct KernelNames {
    names: Option<Arc<Mutex<Names>>>,
    /// A stack of so many frames may have had more.
    most: usize,
}

/// The name of a function, for as long as it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The function; `None` where it is not known which.
    pub(crate) function: Option<(String, Option<Arc<str>>)>,
    /// Whether it is the kernel's own, which never goes.
    pub(crate) is_lasting: bool,
}

#[derive(Debug)]
struct Names {
    source: Box<dyn Source>,
    symbols: KernelSymbols,
    /// What was loaded when the symbols were read, and since when.
    loaded: LoadedCode,
    since: Timestamp,
    /// What was loaded when that was looked at last, and when that was.
    last: LoadedCode,
    looked: Timestamp,
    modules: Proof,
    programs: Proof,
    next_reading: Timestamp,
}

/// Up to when nothing of a kind has come or gone since the symbols were read.
#[derive(Clone, Copy, Debug)]
struct Proof {
    until: Timestamp,
    /// Whether that still was so at the last look.
    holds: bool,
}

impl Proof {
    fn look(&mut self, is_the_same: bool, now: Timestamp) {
        // What has gone and come back may not have been the only one that was there.
        self.holds &= is_the_same;
        if self.holds {
            self.until = now;
        }
    }
}

/// This kernel.
#[derive(Debug)]
struct ThisKernel;

impl Source for ThisKernel {
    fn symbols(&self) -> Result<KernelSymbols, KernelSymbolsError> {
        KernelSymbols::read()
    }

    fn loaded(&self) -> LoadedCode {
        LoadedCode::now()
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }
}

impl KernelNames {
    /// Those of this kernel; and where it does not show them, why: its functions are then without names.
    pub fn read() -> (Self, Option<KernelSymbolsError>) {
        let most = fs::read_to_string("/proc/sys/kernel/perf_event_max_stack");
        let most = most.ok().and_then(|text| text.trim().parse().ok());
        let most = most.map_or(MOST_FRAMES, |most: usize| most.min(MOST_FRAMES));
        match Names::read(Box::new(ThisKernel)) {
            Ok(names) => (KernelNames { names: Some(Arc::new(Mutex::new(names))), most }, None),
            Err(error) => (KernelNames { names: None, most }, Some(error)),
        }
    }

    /// Those of a list that was kept, of a kernel in which nothing comes and goes.
    #[cfg(test)]
    pub(crate) fn of_list(list: Option<&str>, most: usize) -> Self {
        let names = list.map(|list| Arc::new(Mutex::new(tests::still(list))));
        KernelNames { names, most }
    }

    /// Whether the kernel shows any.
    pub(crate) fn are_shown(&self) -> bool {
        self.names.is_some()
    }

    /// A stack of so many frames may have had more.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// The kernel's own function at this address.
    pub(crate) fn own_function(&self, address: u64) -> Option<String> {
        let names = self.lock()?;
        let symbol = names.symbols.find(address).filter(|symbol| symbol.module.is_none())?;
        Some(symbol.name.to_owned())
    }

    /// The function that had code at this address at the instant `at`.
    pub(crate) fn find(&self, address: u64, at: Timestamp) -> Named {
        match self.lock() {
            Some(mut names) => names.find(address, at),
            None => UNKNOWN,
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Names>> {
        // Nothing is half done in it at any place where its holder could panic.
        Some(self.names.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const UNKNOWN: Named = Named { function: None, is_lasting: false };

impl Names {
    fn read(source: Box<dyn Source>) -> Result<Self, KernelSymbolsError> {
        let (start, loaded) = (Timestamp::default(), LoadedCode::default());
        let proof = Proof { until: start, holds: false };
        let mut names = Names {
            source,
            symbols: KernelSymbols::default(),
            loaded: loaded.clone(),
            since: start,
            last: loaded,
            looked: start,
            modules: proof,
            programs: proof,
            next_reading: start,
        };
        names.read_symbols()?;
        Ok(names)
    }

    fn read_symbols(&mut self) -> Result<(), KernelSymbolsError> {
        let loaded = self.source.loaded();
        let since = self.source.now();
        self.symbols = self.source.symbols()?;
        (self.loaded, self.since) = (loaded, since);
        let proof = Proof { until: since, holds: true };
        (self.modules, self.programs) = (proof, proof);
        // It may have changed while they were read.
        self.look();
        Ok(())
    }

    fn find(&mut self, address: u64, at: Timestamp) -> Named {
        let is_own = self.symbols.find(address).is_some_and(|symbol| symbol.module.is_none());
        if !is_own && at > self.looked {
            self.look();
            if !self.proof_of(address).holds {
                self.read_again();
            }
        }
        let proof = self.proof_of(address);
        match self.symbols.find(address) {
            Some(KernelSymbol { name, module: None }) => {
                Named { function: Some((name.to_owned(), None)), is_lasting: true }
            }
            Some(KernelSymbol { name, module })
                if self.since <= at && at <= proof.until && is_told(name, module) =>
            {
                Named { function: Some((name.to_owned(), module.cloned())), is_lasting: false }
            }
            _ => UNKNOWN,
        }
    }

    /// What there is to show that the code at this address is what it was.
    fn proof_of(&self, address: u64) -> Proof {
        match self.symbols.find(address).and_then(|symbol| symbol.module) {
            Some(module) if **module == *PROGRAMS => self.programs,
            Some(_) => self.modules,
            None => Proof {
                until: self.modules.until.min(self.programs.until),
                holds: self.modules.holds && self.programs.holds,
            },
        }
    }

    /// Looks what is loaded.
    fn look(&mut self) {
        // Before: what is there then was there at this instant, if it was before.
        self.looked = self.source.now();
        self.last = self.source.loaded();
        self.modules.look(self.last.has_modules_of(&self.loaded), self.looked);
        self.programs.look(self.last.has_programs_of(&self.loaded), self.looked);
    }

    /// Reads all symbols again, unless that was done not long ago, or would tell nothing new.
    fn read_again(&mut self) {
        let now = self.source.now();
        if now < self.next_reading || self.last == self.loaded {
            return;
        }
        self.next_reading = now + READING_GAP;
        // Where they are not shown any more, those that there are stay without a proof.
        let _ = self.read_symbols();
    }
}

/// Whether a function of what was loaded is shown by its name.
fn is_told(name: &str, module: Option<&Arc<str>>) -> bool {
    match module {
        // What the kernel itself makes.
        Some(module) if module.starts_with("__builtin__") => false,
        Some(module) if **module == *PROGRAMS => name.starts_with(OF_PROGRAMS),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    const KERNEL: &str = "ffffffff81000000 T vfs_read\nffffffff81000700 T _etext\n";
    const CHAIN: &str = "ffffffffc0100000 t nft_do_chain\t[nf_tables]\n";
    const OTHER: &str = "ffffffffc0100000 t sound_start\t[snd]\n";
    const FILTER: &str = "\
ffffffffc0200000 t bpf_prog_6deef7357e7b4530_egress\t[bpf]
ffffffffc0300000 t bpf_trampoline_6442\t[bpf]
ffffffffc0400000 t ftrace_trampoline\t[__builtin__ftrace]
";
    const READ: u64 = 0xffff_ffff_8100_0010;
    const PLACE: u64 = 0xffff_ffff_c010_0010;
    const EGRESS: u64 = 0xffff_ffff_c020_0010;

    fn tables() -> String {
        "nf_tables 4096 1 - Live 0xffffffffc0100000\n".to_owned()
    }

    fn sound() -> String {
        "snd 4096 1 - Live 0xffffffffc0100000\n".to_owned()
    }

    /// A kernel whose clock stands still until it is moved on.
    #[derive(Debug, Default)]
    struct Recorded {
        state: Mutex<(String, LoadedCode)>,
        clock: AtomicU64,
        readings: AtomicUsize,
    }

    impl Recorded {
        fn with(symbols: &[&str], modules: &str, programs: &[u32]) -> Arc<Self> {
            let recorded = Arc::new(Recorded::default());
            recorded.change(symbols, modules, programs);
            recorded.pass(1);
            recorded
        }

        fn change(&self, symbols: &[&str], modules: &str, programs: &[u32]) {
            let loaded = LoadedCode::parse(modules, programs.iter().copied());
            *self.state.lock().unwrap() = (symbols.concat(), loaded);
        }

        /// Some seconds go by; returns what time it is.
        fn pass(&self, seconds: u64) -> Timestamp {
            self.clock.fetch_add(seconds * 1_000_000_000, Ordering::Relaxed);
            Source::now(self)
        }
    }

    impl Source for Recorded {
        fn symbols(&self) -> Result<KernelSymbols, KernelSymbolsError> {
            self.readings.fetch_add(1, Ordering::Relaxed);
            Ok(KernelSymbols::parse(self.state.lock().unwrap().0.as_bytes())?)
        }

        fn loaded(&self) -> LoadedCode {
            self.state.lock().unwrap().1.clone()
        }

        fn now(&self) -> Timestamp {
            Timestamp::from_nanos(self.clock.load(Ordering::Relaxed))
        }
    }

    impl Source for Arc<Recorded> {
        fn symbols(&self) -> Result<KernelSymbols, KernelSymbolsError> {
            (**self).symbols()
        }

        fn loaded(&self) -> LoadedCode {
            (**self).loaded()
        }

        fn now(&self) -> Timestamp {
            Source::now(&**self)
        }
    }

    /// Names of a kernel in which nothing comes or goes.
    pub(super) fn still(list: &str) -> Names {
        Names::read(Box::new(Recorded::with(&[list], "", &[]))).unwrap()
    }

    fn name(names: &mut Names, address: u64, at: Timestamp) -> Option<String> {
        names.find(address, at).function.map(|(name, _)| name)
    }

    #[test]
    fn a_module_that_is_loaded_later_gets_its_names_from_then_on() {
        let kernel = Recorded::with(&[KERNEL], "", &[]);
        let mut names = Names::read(Box::new(kernel.clone())).unwrap();
        assert_eq!(name(&mut names, PLACE, kernel.pass(20)), None);
        assert_eq!(kernel.readings.load(Ordering::Relaxed), 1, "nothing new was loaded");
        kernel.change(&[KERNEL, CHAIN], &tables(), &[]);
        let before = kernel.pass(1);
        let now = kernel.pass(1);
        // A sample that is older than the reading may have met something else there.
        assert_eq!(name(&mut names, PLACE, before), None);
        let later = kernel.pass(1);
        assert_eq!(name(&mut names, PLACE, later).as_deref(), Some("nft_do_chain"));
        assert!(later > now && kernel.readings.load(Ordering::Relaxed) == 2);
        assert_eq!(name(&mut names, READ, before).as_deref(), Some("vfs_read"), "the kernel's own stays");
    }

    #[test]
    fn what_came_to_the_place_of_a_module_is_not_taken_for_it() {
        let kernel = Recorded::with(&[KERNEL, CHAIN], &tables(), &[]);
        let mut names = Names::read(Box::new(kernel.clone())).unwrap();
        let known = kernel.pass(1);
        assert_eq!(name(&mut names, PLACE, known).as_deref(), Some("nft_do_chain"));
        let unknown = kernel.pass(1);
        kernel.change(&[KERNEL, OTHER], &sound(), &[]);
        let after = kernel.pass(1);
        // Either may have been there.
        assert_eq!(name(&mut names, PLACE, unknown), None);
        assert_eq!(name(&mut names, PLACE, after).as_deref(), Some("sound_start"));
        assert_eq!(name(&mut names, PLACE, known), None, "that was before the symbols that there are");
    }

    #[test]
    fn what_has_gone_and_come_back_is_read_again() {
        let kernel = Recorded::with(&[KERNEL, CHAIN], &tables(), &[]);
        let mut names = Names::read(Box::new(kernel.clone())).unwrap();
        for round in 0..2 {
            kernel.change(&[KERNEL], "", &[]);
            assert_eq!(name(&mut names, PLACE, kernel.pass(20)), None, "{round}");
            kernel.change(&[KERNEL, CHAIN], &tables(), &[]);
            name(&mut names, PLACE, kernel.pass(20));
            assert_eq!(name(&mut names, PLACE, kernel.pass(1)).as_deref(), Some("nft_do_chain"), "{round}");
        }
    }

    #[test]
    fn a_kernel_that_changes_all_the_time_is_not_read_all_the_time() {
        let kernel = Recorded::with(&[KERNEL], "", &[1]);
        let mut names = Names::read(Box::new(kernel.clone())).unwrap();
        for number in 2..100 {
            kernel.change(&[KERNEL, CHAIN], &tables(), &[number]);
            name(&mut names, PLACE, kernel.pass(1));
            name(&mut names, EGRESS, kernel.pass(1));
        }
        let seconds = 2 * 98;
        let readings = kernel.readings.load(Ordering::Relaxed) as u64;
        assert!(readings <= 2 + seconds * 1_000_000_000 / READING_GAP.as_nanos(), "{readings}");
    }

    #[test]
    fn programs_are_named_as_long_as_the_same_are_attached_and_what_the_kernel_makes_for_them_is_not() {
        let kernel = Recorded::with(&[KERNEL, FILTER], "", &[7]);
        let mut names = Names::read(Box::new(kernel.clone())).unwrap();
        let now = kernel.pass(1);
        assert_eq!(name(&mut names, EGRESS, now).as_deref(), Some("bpf_prog_6deef7357e7b4530_egress"));
        for made in [EGRESS + 0x10_0000, EGRESS + 0x20_0000] {
            assert_eq!(name(&mut names, made, now), None, "{made:#x}");
        }
        let unknown = kernel.pass(1);
        kernel.change(&[KERNEL, FILTER], "", &[8]);
        kernel.pass(1);
        assert_eq!(name(&mut names, EGRESS, unknown), None);
    }

    #[test]
    fn where_it_is_not_shown_what_is_loaded_only_the_kernels_own_functions_have_names() {
        let kernel = Recorded::with(&[KERNEL, CHAIN, FILTER], "", &[]);
        kernel.state.lock().unwrap().1 = LoadedCode::default();
        let mut names = Names::read(Box::new(kernel.clone())).unwrap();
        let now = kernel.pass(1);
        assert_eq!(name(&mut names, READ, now).as_deref(), Some("vfs_read"));
        assert_eq!((name(&mut names, PLACE, now), name(&mut names, EGRESS, now)), (None, None));
        assert_eq!(kernel.readings.load(Ordering::Relaxed), 1);
    }
}
