//! What `/proc` tells of processes and threads.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::errno::Errno;
use profiler_model::{Nanos, NsTid, Pid, RemoteAddr, SchedStat, ThreadState, Tid, WaitReason};

use crate::limits::KeepingRight;
use crate::patience::Pending;
use crate::proc_text::text_of;

/// Arguments that have not been read by then are not shown: they lie in the memory of the process.
const MAX_WAIT_FOR_ARGUMENTS: Nanos = Nanos::from_nanos(500_000_000);

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: RemoteAddr,
    /// First address after it.
    pub end: RemoteAddr,
    /// Offset of `start` in the mapped file.
    pub file_offset: u64,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
    /// The mapped file's inode; 0 where no file is mapped.
    pub inode: u64,
    /// The mapped file's path (below the profiler's own root folder where it lies there, else as the target
    /// sees it), `[heap]` and the like, or empty.
    pub path: String,
}

/// Whose processes `/proc` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcView {
    /// Those that we know by the same ids.
    Own,
    /// Those of another PID namespace: its process 7 is not our process 7.
    OtherNamespace,
    /// None: it is not mounted.
    Missing,
}

/// Whose processes `/proc` shows to this process.
pub fn proc_view() -> ProcView {
    match fs::read_link("/proc/self") {
        Ok(own) if own.to_str() == Some(&std::process::id().to_string()) => ProcView::Own,
        Ok(_) => ProcView::OtherNamespace,
        // There, but not for us: we do not exist in its namespace.
        Err(_) if fs::symlink_metadata("/proc/self").is_ok() => ProcView::OtherNamespace,
        Err(_) => ProcView::Missing,
    }
}

/// A process as seen through `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pid: Pid,
}

impl Process {
    /// The process `pid`, whether it exists or not.
    pub fn new(pid: Pid) -> Self {
        Process { pid }
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// Its folder in `/proc`, or that of one of its threads: once the first thread has ended, only those of the others
    /// still show the memory, the files and the folders that they share.
    pub fn folder(&self) -> PathBuf {
        match self.living_thread() {
            Some(tid) if tid.as_u32() != self.pid.as_u32() => self.path(&format!("task/{tid}")),
            _ => PathBuf::from(format!("/proc/{}", self.pid)),
        }
    }

    /// A thread of it that has not ended: the first one, unless that has (`pthread_exit` in `main`). `None` when the
    /// process has ended.
    pub fn living_thread(&self) -> Option<Tid> {
        if !self.stat().ok()?.has_ended() {
            return Some(Tid::new(self.pid.as_u32()));
        }
        let lives = |tid: &Tid| {
            let text = fs::read(self.path(&format!("task/{tid}/stat")));
            text.ok().and_then(|text| parse_stat(&text)).is_some_and(|stat| !stat.has_ended())
        };
        self.threads().ok()?.into_iter().find(lives)
    }

    /// Whether it exists and has not ended. A zombie has, unless only its first thread has and others run.
    pub fn is_alive(&self) -> bool {
        self.living_thread().is_some()
    }

    /// Whether it has ended or is just ending, so that its memory is gone or soon will be.
    pub fn is_ending(&self) -> bool {
        !self.is_alive()
    }

    /// Whether it exists although `/proc` shows nothing of it: mounted with `hidepid`, `/proc` hides the
    /// processes of other users.
    pub fn is_hidden(&self) -> bool {
        let pid = nix::unistd::Pid::from_raw(self.pid.as_u32() as i32);
        fs::metadata(self.path("")).is_err() && nix::sys::signal::kill(pid, None) == Err(Errno::EPERM)
    }

    /// Its memory map.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn mappings(&self) -> io::Result<Vec<Mapping>> {
        Ok(text_of(&self.folder().join("maps"))?.lines().filter_map(parse_mapping).collect())
    }

    /// The path of its executable, as the target sees it.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn executable(&self) -> io::Result<PathBuf> {
        fs::read_link(self.folder().join("exe"))
    }

    /// The file that is mapped at `range`, such as `7f12a000-7f12b000`: the very one, even if it was deleted since.
    pub fn mapped_file(&self, range: &str) -> PathBuf {
        // The folders below `task` have no `map_files`.
        let tid = self.living_thread().unwrap_or(Tid::new(self.pid.as_u32()));
        PathBuf::from(format!("/proc/{tid}/map_files/{range}"))
    }

    /// A path of the target, seen from here: through the target's own root folder.
    pub fn in_its_root(&self, path: &str) -> PathBuf {
        self.folder().join("root").join(path.trim_start_matches('/'))
    }

    /// What its file descriptor is open on, as the kernel calls it: a path, `socket:[4711]`, `pipe:[4712]`.
    pub fn opened(&self, descriptor: u32) -> Option<String> {
        let link = fs::read_link(self.folder().join(format!("fd/{descriptor}"))).ok()?;
        Some(link.to_string_lossy().into_owned())
    }

    /// Its command line, arguments joined by blanks.
    ///
    /// # Errors
    /// When the process is gone, or its memory, where the arguments are, does not answer in time.
    pub fn command_line(&self) -> io::Result<String> {
        let file = self.folder().join("cmdline");
        let raw = Pending::begin(move || fs::read(file))?
            .wait(MAX_WAIT_FOR_ARGUMENTS)
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
        let arguments: Vec<_> = raw.split(|byte| *byte == 0).map(argument_text).collect();
        Ok(arguments.join(" ").trim_end().to_owned())
    }

    /// The folder it runs in, seen from here.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn working_directory(&self) -> io::Result<PathBuf> {
        fs::read_link(self.folder().join("cwd"))
    }

    /// The kernel threads it has now, without the first one if that has ended before the others.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn threads(&self) -> io::Result<Vec<Tid>> {
        let first_has_ended = self.stat()?.has_ended();
        let mut threads = Vec::new();
        for entry in fs::read_dir(self.path("task"))? {
            if let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                threads.push(Tid::new(tid));
            }
        }
        if first_has_ended {
            threads.retain(|tid| tid.as_u32() != self.pid.as_u32());
        }
        Ok(threads)
    }

    /// The id by which the target itself knows the thread: the one in its innermost PID namespace.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn inner_thread_id(&self, tid: Tid) -> io::Result<NsTid> {
        let status = text_of(&self.path(&format!("task/{tid}/status")))?;
        let inner = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .and_then(|ids| ids.split_ascii_whitespace().last())
            .and_then(|id| id.parse().ok());
        Ok(NsTid::new(inner.unwrap_or(tid.as_u32())))
    }

    /// Whether the profiler and the process are in the same PID namespace, so that ids need no translation.
    pub fn shares_pid_namespace(&self) -> bool {
        self.shares_namespace("pid") == Some(true)
    }

    /// Whether the profiler and the process are in the same namespace of a kind (`pid`, `mnt`, `user`);
    /// `None` where that may not be seen.
    pub fn shares_namespace(&self, kind: &str) -> Option<bool> {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        let its = fs::read_link(self.folder().join(format!("ns/{kind}"))).ok()?;
        Some(own == its)
    }

    /// Its root folder, seen from here: `/`, unless it is in a `chroot`.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn root_folder(&self) -> io::Result<PathBuf> {
        fs::read_link(self.folder().join("root"))
    }

    /// The user that it runs as.
    pub fn user(&self) -> Option<u32> {
        let status = text_of(&self.path("status")).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        ids.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// State, parent and start time. The state is that of its first thread, which may end before the others.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn stat(&self) -> io::Result<Stat> {
        let text = fs::read(self.path("stat"))?;
        parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The letter of its state: that of its first thread, or of another one where that has ended.
    pub fn state(&self) -> Option<u8> {
        let text = fs::read(self.folder().join("stat")).ok()?;
        Some(parse_stat(&text)?.state)
    }

    /// When it started, as time since 1970, to a hundredth of a second.
    pub fn started_at(&self) -> Option<Nanos> {
        use nix::time::{ClockId, clock_gettime};
        let since_boot =
            |clock| clock_gettime(clock).map(|time| Nanos::from(std::time::Duration::from(time)));
        let now = since_boot(ClockId::CLOCK_REALTIME).ok()?.as_nanos();
        let booted = now.checked_sub(since_boot(ClockId::CLOCK_BOOTTIME).ok()?.as_nanos())?;
        // The kernel shows user space hundredths of a second, whatever its own ticks are.
        const TICK: u64 = 10_000_000;
        let ticks = self.stat().ok()?.start_time;
        Some(Nanos::from_nanos(booted.checked_add(ticks.checked_mul(TICK)?)?))
    }

    /// The process that traces it, if any.
    pub fn tracer(&self) -> Option<Pid> {
        let status = text_of(&self.path("status")).ok()?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().parse().ok()?;
        (tracer != 0).then_some(Pid::new(tracer))
    }

    /// Its resident memory in bytes.
    pub fn resident_memory(&self) -> Option<u64> {
        let text = text_of(&self.folder().join("statm")).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
        Some(pages * u64::try_from(page).ok()?)
    }

    /// CPU time that all its threads, past and present, have used.
    pub fn cpu_time(&self) -> Option<Nanos> {
        let pid = nix::unistd::Pid::from_raw(self.pid.as_u32() as i32);
        let clock = nix::time::clock_getcpuclockid(pid).ok()?;
        let time = nix::time::clock_gettime(clock).ok()?;
        Some(Nanos::from(std::time::Duration::from(time)))
    }
}

/// An argument as text: bytes that are no UTF-8 as shells write them (`\xff`), so that two such arguments stay two.
fn argument_text(argument: &[u8]) -> String {
    let mut text = String::with_capacity(argument.len());
    for chunk in argument.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// `PF_EXITING` of Linux: a thread that is ending. Its memory may be gone already.
const ENDING: u64 = 0x4;

/// The fields of `/proc/PID/stat` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The state's letter: R, S, D, T, t, Z, X.
    pub state: u8,
    /// The parent.
    pub parent: Pid,
    /// When it started, in clock ticks since boot: with the pid, what tells a process from a later one
    /// that has the same pid.
    pub start_time: u64,
    /// Whether the first thread is ending, or a zombie. It may have no memory any more.
    pub is_ending: bool,
}

impl Stat {
    /// Whether the first thread is ending or has ended. So has the process, unless it has other threads ([`Process::is_alive`]).
    pub fn has_ended(&self) -> bool {
        self.is_ending
    }
}

fn parse_stat_state(text: &[u8]) -> Option<u8> {
    // The command name, in parentheses, may hold anything, closing parentheses too.
    text.get(text.iter().rposition(|byte| *byte == b')')? + 2).copied()
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The command name, in parentheses, may hold anything, closing parentheses too.
    let after_name = text.iter().rposition(|byte| *byte == b')')? + 2;
    let rest = std::str::from_utf8(text.get(after_name..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?.as_bytes().first()?;
    let flags: u64 = fields.get(6)?.parse().ok()?;
    Some(Stat {
        state,
        is_ending: matches!(state, b'Z' | b'X') || flags & ENDING != 0,
        parent: Pid::new(fields.get(1)?.parse().ok()?),
        start_time: fields.get(19)?.parse().ok()?,
    })
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let flags = words.next()?.as_bytes();
    let file_offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let (_device, inode) = (words.next()?, words.next()?.parse().ok()?);
    Some(Mapping {
        start: RemoteAddr::new(u64::from_str_radix(start, 16).ok()?),
        end: RemoteAddr::new(u64::from_str_radix(end, 16).ok()?),
        file_offset,
        readable: flags.first() == Some(&b'r'),
        writable: flags.get(1) == Some(&b'w'),
        executable: flags.get(2) == Some(&b'x'),
        inode,
        path: words.next().unwrap_or("").trim_start().to_owned(),
    })
}

/// A small file of `/proc` that is read again and again: kept open, unless too many are.
#[derive(Debug)]
struct KeptFile {
    path: String,
    file: Option<(File, KeepingRight)>,
}

impl KeptFile {
    fn open(path: String) -> io::Result<Self> {
        let file = match KeepingRight::take() {
            Some(right) => Some((File::open(&path)?, right)),
            None if fs::exists(&path)? => None,
            None => return Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Ok(KeptFile { path, file })
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.file {
            Some((file, _)) => file.read_at(into, 0),
            None => File::open(&self.path)?.read_at(into, 0),
        }
    }
}

/// A thread's files in `/proc`: they are read for every sample.
#[derive(Debug)]
pub struct ThreadFiles {
    folder: String,
    schedstat: KeptFile,
    syscall: OnceCell<KeptFile>,
}

impl ThreadFiles {
    /// Opens the files of thread `tid` of process `pid`.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn open(pid: Pid, tid: Tid) -> io::Result<Self> {
        let folder = format!("/proc/{pid}/task/{tid}");
        let schedstat = KeptFile::open(format!("{folder}/schedstat"))?;
        Ok(ThreadFiles { folder, schedstat, syscall: OnceCell::new() })
    }

    /// What the scheduler has counted.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn schedule(&self) -> io::Result<SchedStat> {
        let mut text = [0u8; 96];
        let length = self.schedstat.read(&mut text)?;
        let mut numbers =
            text[..length].split(|b| !b.is_ascii_digit()).filter(|w| !w.is_empty()).map(decimal);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(cpu), Some(queued), Some(timeslices)) => {
                Ok(SchedStat { cpu: Nanos::from_nanos(cpu), queued: Nanos::from_nanos(queued), timeslices })
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// What the thread is doing: running, or blocked in which system call.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn activity(&self) -> io::Result<Activity> {
        let mut text = [0u8; 192];
        let length = self.syscall()?.read(&mut text)?;
        match parse_activity(&text[..length]) {
            // Not on a CPU and in no system call: what that is only the state tells.
            Activity::Blocked { call: None, .. } => self.activity_outside_calls(),
            activity => Ok(activity),
        }
    }

    /// The functions of the kernel in which the thread waits, leaf first, but for those by which it left its CPU. Of a
    /// thread that does not sleep they mean nothing.
    ///
    /// # Errors
    /// When the thread is gone, or this is not for us to see: it takes `CAP_SYS_ADMIN`.
    pub fn kernel_stack(&self) -> io::Result<Vec<KernelFunction>> {
        let mut text = Vec::new();
        let file = File::open(format!("{}/stack", self.folder))?;
        file.take(MAX_KERNEL_STACK_BYTES).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(parse_kernel_function).collect())
    }

    fn syscall(&self) -> io::Result<&KeptFile> {
        if let Some(file) = self.syscall.get() {
            return Ok(file);
        }
        let file = KeptFile::open(format!("{}/syscall", self.folder))?;
        Ok(self.syscall.get_or_init(|| file))
    }

    fn activity_outside_calls(&self) -> io::Result<Activity> {
        let mut text = [0u8; 512];
        let length = File::open(format!("{}/stat", self.folder))?.read_at(&mut text, 0)?;
        match parse_stat_state(&text[..length]) {
            // `t`: it was stopped by us and let go, and is about to run on.
            Some(b'R' | b't') => Ok(Activity::Running),
            Some(b'T') => Ok(Activity::Stopped),
            // The first thread stays as a zombie until the last one has ended.
            Some(b'Z' | b'X') => Err(io::Error::from(io::ErrorKind::NotFound)),
            _ => Ok(Activity::Blocked { call: None, argument: 0 }),
        }
    }
}

fn decimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

/// What `/proc/PID/task/TID/syscall` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// On a CPU or ready for one.
    Running,
    /// Asleep, in the system call of this number with this first argument; the number is `None` when it
    /// sleeps outside any (a page fault).
    Blocked {
        /// The system call.
        call: Option<u64>,
        /// Its first argument.
        argument: u64,
    },
    /// Under a stop signal.
    Stopped,
}

/// One of the two descriptors of a call that copies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEnd {
    /// What is read, of `splice`, whose other one may be anything if this is a pipe.
    Source,
    /// What is written, of `sendfile`, which reads no sockets unless this is a pipe.
    Target,
}

fn parse_activity(text: &[u8]) -> Activity {
    let text = String::from_utf8_lossy(text);
    let mut words = text.split_ascii_whitespace();
    match words.next() {
        None | Some("running") => Activity::Running,
        Some(number) => Activity::Blocked {
            call: number.parse().ok(),
            argument: words
                .next()
                .and_then(|word| word.strip_prefix("0x"))
                .and_then(|word| u64::from_str_radix(word, 16).ok())
                .unwrap_or(0),
        },
    }
}

impl Activity {
    /// The address of the futex it sleeps on, if it does.
    pub fn futex(self) -> Option<RemoteAddr> {
        match self {
            Activity::Blocked { call: Some(call), argument } if is_futex(call) => {
                Some(RemoteAddr::new(argument))
            }
            _ => None,
        }
    }

    /// The thread state that follows, apart from the GIL, which only the runtime's layout tells.
    pub fn thread_state(self) -> ThreadState {
        match self {
            Activity::Running => ThreadState::Running,
            Activity::Stopped => ThreadState::Waiting(WaitReason::Stopped),
            Activity::Blocked { call: None, .. } => ThreadState::Waiting(WaitReason::Disk),
            // How a program sleeps for less than a second since ever, and CPython up to 3.10.
            Activity::Blocked { call: Some(call), argument: 0 } if is_select(call) => {
                ThreadState::Waiting(WaitReason::Sleep)
            }
            Activity::Blocked { call: Some(call), .. } => ThreadState::Waiting(wait_reason(call)),
        }
    }
}

impl Activity {
    /// The file descriptor that the system call was given which the thread sleeps in, of calls that take one.
    pub fn descriptor(self) -> Option<u32> {
        let Activity::Blocked { call: Some(call), argument } = self else { return None };
        let takes_one = match wait_reason(call) {
            WaitReason::Socket => true,
            // Its first argument is the folder that a path is relative to.
            WaitReason::File => call != libc::SYS_openat as u64,
            _ => false,
        };
        takes_one.then(|| u32::try_from(argument).ok()).flatten()
    }

    /// Of a call that copies between two descriptors, one of which can be a socket or a pipe: what its first one is.
    pub fn first_of_two(self) -> Option<CopyEnd> {
        let Activity::Blocked { call: Some(call), .. } = self else { return None };
        match call as i64 {
            libc::SYS_splice => Some(CopyEnd::Source),
            libc::SYS_sendfile => Some(CopyEnd::Target),
            _ => None,
        }
    }

    /// The child that the thread waits for, where it waits for one.
    pub fn child(self) -> Option<u32> {
        match self {
            // Not positive: any child, or any of a group.
            Activity::Blocked { call: Some(call), argument } if call == libc::SYS_wait4 as u64 => {
                u32::try_from(argument as i32).ok().filter(|pid| *pid > 0)
            }
            _ => None,
        }
    }
}

fn is_futex(call: u64) -> bool {
    // 449: futex_waitv, 454-456: futex_wake, futex_wait and futex_requeue, on every architecture.
    call == libc::SYS_futex as u64 || matches!(call, 449 | 455)
}

/// Whether its first argument is the number of file descriptors that it waits for.
fn is_select(call: u64) -> bool {
    #[cfg(target_arch = "x86_64")]
    if call == libc::SYS_select as u64 {
        return true;
    }
    call == libc::SYS_pselect6 as u64
}

/// What a sleeping system call waits for.
fn wait_reason(call: u64) -> WaitReason {
    match call as i64 {
        _ if is_futex(call) => WaitReason::Lock,
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => WaitReason::Sleep,
        libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_connect
        | libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg => WaitReason::Socket,
        libc::SYS_ppoll | libc::SYS_pselect6 | libc::SYS_epoll_pwait => WaitReason::Poll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll | libc::SYS_select | libc::SYS_epoll_wait => WaitReason::Poll,
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_preadv2
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_copy_file_range
        | libc::SYS_fallocate
        | libc::SYS_ftruncate
        | libc::SYS_getdents64
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_sync_file_range
        | libc::SYS_syncfs
        | libc::SYS_openat
        | libc::SYS_flock
        | libc::SYS_fcntl
        | libc::SYS_splice
        | libc::SYS_sendfile => WaitReason::File,
        libc::SYS_wait4 | libc::SYS_waitid => WaitReason::Child,
        // sigtimedwait and friends sleep until a signal or a time: what `signal.pause` does.
        libc::SYS_rt_sigtimedwait | libc::SYS_rt_sigsuspend => WaitReason::Sleep,
        _ => WaitReason::Unknown,
    }
}

/// A function of the kernel, as it writes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFunction {
    /// Its name.
    pub name: String,
    /// The module that it came with; `None` for the kernel itself.
    pub module: Option<String>,
}

/// The most that is read of a thread's stack in the kernel, which writes at most 64 lines of some 50 bytes.
const MAX_KERNEL_STACK_BYTES: u64 = 64 * 1024;

/// `[<0>] hrtimer_nanosleep+0x74/0xf0`, and of a module `[<0>] nft_do_chain+0x74/0xf0 [nf_tables]`. Where it has no name
/// for a place, the kernel writes its address.
fn parse_kernel_function(line: &str) -> Option<KernelFunction> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (name, _) = words.next()?.split_once("+0x")?;
    // Behind its name, some kernels write which build of it.
    let module = words.next().and_then(|word| word.strip_prefix('['));
    let module = module.map(|word| word.trim_end_matches(']').to_owned());
    Some(KernelFunction { name: name.to_owned(), module })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_was_given_says_on_what_it_waits() {
        let blocked = |call: i64, argument| Activity::Blocked { call: Some(call as u64), argument };
        assert_eq!(blocked(libc::SYS_read, 5).descriptor(), Some(5));
        assert_eq!(blocked(libc::SYS_recvfrom, 7).descriptor(), Some(7));
        assert_eq!(blocked(libc::SYS_openat, 5).descriptor(), None);
        assert_eq!(blocked(libc::SYS_futex, 5).descriptor(), None);
        assert_eq!(blocked(libc::SYS_read, u64::MAX).descriptor(), None);
        assert_eq!(blocked(libc::SYS_splice, 5).first_of_two(), Some(CopyEnd::Source));
        assert_eq!(blocked(libc::SYS_sendfile, 5).first_of_two(), Some(CopyEnd::Target));
        assert_eq!(blocked(libc::SYS_read, 5).first_of_two(), None);
        assert_eq!(blocked(libc::SYS_wait4, 4711).child(), Some(4711));
        assert_eq!(blocked(libc::SYS_wait4, u64::from(u32::MAX)).child(), None);
        assert_eq!(blocked(libc::SYS_read, 4711).child(), None);
        assert_eq!((Activity::Running.descriptor(), Activity::Running.child()), (None, None));
    }

    #[test]
    fn to_select_among_nothing_is_to_sleep() {
        let select = |argument| Activity::Blocked { call: Some(libc::SYS_pselect6 as u64), argument };
        assert_eq!(select(0).thread_state(), ThreadState::Waiting(WaitReason::Sleep));
        assert_eq!(select(1).thread_state(), ThreadState::Waiting(WaitReason::Poll));
    }

    #[test]
    fn a_stat_line_with_parentheses_in_the_name() {
        let line = b"42 (a) S (b) R 7 42 42 0 -1 4194304 1 0 0 0 1 2 3 4 20 0 1 0 987654 1 2";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_time), (b'R', Pid::new(7), 987_654));
    }

    #[test]
    fn a_mapping_of_a_file_whose_name_has_blanks() {
        let line = "7f0c8a000000-7f0c8a021000 rw-p 00001000 fe:00 1234                       /usr/lib/a b.so";
        let mapping = parse_mapping(line).unwrap();
        assert_eq!(
            (mapping.path.as_str(), mapping.file_offset, mapping.inode),
            ("/usr/lib/a b.so", 0x1000, 1234)
        );
        assert_eq!((mapping.readable, mapping.writable, mapping.executable), (true, true, false));
    }

    #[test]
    fn what_a_thread_is_doing() {
        assert_eq!(parse_activity(b"running\n"), Activity::Running);
        let futex = format!("{} 0x7f00 0x80 0x0 0x0 0x0 0x0 0x7ffd 0x7f1c\n", libc::SYS_futex);
        assert_eq!(parse_activity(futex.as_bytes()).futex(), Some(RemoteAddr::new(0x7f00)));
        assert_eq!(
            parse_activity(b"-1 0x7ffc 0x7f00\n").thread_state(),
            ThreadState::Waiting(WaitReason::Disk)
        );
    }

    #[test]
    fn own_processes_are_shown_and_not_hidden() {
        assert_eq!(proc_view(), ProcView::Own);
        assert!(!Process::new(Pid::new(std::process::id())).is_hidden());
        assert!(!Process::new(Pid::new(u32::MAX >> 1)).is_hidden());
    }

    #[test]
    fn own_thread_is_running_and_counted() {
        let pid = Pid::new(std::process::id());
        let tid = Tid::new(nix::unistd::gettid().as_raw() as u32);
        let files = ThreadFiles::open(pid, tid).unwrap();
        assert!(files.schedule().unwrap().timeslices > 0);
        assert!(Process::new(pid).threads().unwrap().contains(&tid));
        assert_eq!(Process::new(pid).inner_thread_id(tid).unwrap(), NsTid::new(tid.as_u32()));
    }

    #[test]
    fn where_a_thread_waits_in_the_kernel_is_read_line_by_line() {
        let found = |line| parse_kernel_function(line).map(|found| (found.name, found.module));
        let named = |name: &str, module: Option<&str>| Some((name.to_owned(), module.map(str::to_owned)));
        assert_eq!(found("[<0>] hrtimer_nanosleep+0x74/0xf0"), named("hrtimer_nanosleep", None));
        assert_eq!(found("[<0>] nft_do+0x74/0xf0 [nf_tables]"), named("nft_do", Some("nf_tables")));
        assert_eq!(found("[<0>] nft_do+0x74/0xf0 [nf_tables 4c41]"), named("nft_do", Some("nf_tables")));
        for line in ["", "[<0>]", "[<0>] 0xffffffffc0100000", "[<ffffffff81000000>] 0xffffffff81000000"] {
            assert_eq!(found(line), None, "{line:?}");
        }
    }
}
