//! Births, `exec`s and ends of processes, as the kernel tells them: the process events connector, a netlink
//! socket. Not for threads, and not for finding what exists already: that is in `children`.
//!
//! The connector tells of all processes of the machine, and only in the machine's own PID and network
//! namespaces. Since Linux 6.6 everyone may listen, before that it took `CAP_NET_ADMIN`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use profiler_model::{Pid, Timestamp};

/// Something that happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// A process was forked.
    Forked {
        /// The process that forked it.
        parent: Pid,
        /// The new process.
        child: Pid,
        /// When.
        at: Timestamp,
    },
    /// A process now runs another program.
    Executed {
        /// The process.
        pid: Pid,
        /// When.
        at: Timestamp,
    },
    /// A process has ended.
    Ended {
        /// The process.
        pid: Pid,
        /// When.
        at: Timestamp,
    },
}

/// Why there are no events to read.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The kernel does not offer them, or not here.
    #[error("the kernel tells no process events here")]
    Unavailable,
    /// There were more events than the kernel keeps: some are missing.
    #[error("process events were missed")]
    Missed,
}

/// How much the kernel may keep for us between two looks: some thousand events.
const KEPT_BYTES: libc::c_int = 4 << 20;

/// How many events are taken at one look. A machine on which more happens at once is looked at again at the
/// next one.
const MAX_EVENTS_A_LOOK: usize = 16_384;

// <linux/connector.h> and <linux/cn_proc.h>; these are the kernel's promise to user space.
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const PROC_EVENT_NONE: u32 = 0;
const PROC_EVENT_FORK: u32 = 1;
const PROC_EVENT_EXEC: u32 = 2;
const PROC_EVENT_EXIT: u32 = 0x8000_0000;

/// `struct nlmsghdr` and `struct cn_msg`.
const HEADER_BYTES: usize = 16 + 20;
/// `struct proc_event`: what, cpu, timestamp, and what it is about.
const WHAT: usize = HEADER_BYTES;
const TIMESTAMP: usize = HEADER_BYTES + 8;
const DATA: usize = HEADER_BYTES + 16;

/// A socket on which the kernel tells events.
#[derive(Debug)]
pub struct ProcessEvents {
    socket: File,
}

impl ProcessEvents {
    /// Starts to listen. What happens from now on will be told.
    ///
    /// # Errors
    /// [`EventsError::Unavailable`] where the kernel does not let us.
    pub fn listen() -> Result<Self, EventsError> {
        ProcessEvents::open().map_err(|_| EventsError::Unavailable)
    }

    fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: takes numbers only.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_CONNECTOR) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just opened this descriptor, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        keep_much(&socket);
        drop_events_of_threads(&socket);
        bind(&socket)?;
        let mut events = ProcessEvents { socket: File::from(socket) };
        events.socket.write_all(&listen_request())?;
        // The kernel answers before the call returns; where it does not, it will tell nothing else either.
        match events.receive()? {
            Some(message)
                if word(&message, WHAT) == Some(PROC_EVENT_NONE) && word(&message, DATA) == Some(0) =>
            {
                Ok(events)
            }
            _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// Can be read when there are some.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes the events since the last look, in order.
    ///
    /// # Errors
    /// [`EventsError::Missed`] when some are missing; those that came later are told at the next look.
    pub fn take(&mut self) -> Result<Vec<ProcessEvent>, EventsError> {
        let mut events = Vec::new();
        while events.len() < MAX_EVENTS_A_LOOK {
            match self.receive() {
                Ok(Some(message)) => events.extend(parse(&message)),
                Ok(None) => break,
                Err(_) => return Err(EventsError::Missed),
            }
        }
        Ok(events)
    }

    fn receive(&mut self) -> io::Result<Option<[u8; 128]>> {
        let mut message = [0u8; 128];
        match self.socket.read(&mut message) {
            Ok(_) => Ok(Some(message)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.receive(),
            Err(error) => Err(error),
        }
    }
}

/// The number of four bytes at `offset`.
fn word(message: &[u8], offset: usize) -> Option<u32> {
    message.get(offset..offset + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn parse(message: &[u8]) -> Option<ProcessEvent> {
    let nanos = u64::from_ne_bytes(message.get(TIMESTAMP..TIMESTAMP + 8)?.try_into().ok()?);
    let at = Timestamp::from_nanos(nanos);
    let id = |index: usize| word(message, DATA + 4 * index).map(Pid::new);
    match word(message, WHAT)? {
        // The forking thread and its process, the new thread and its process.
        PROC_EVENT_FORK if id(2)? == id(3)? => {
            Some(ProcessEvent::Forked { parent: id(1)?, child: id(3)?, at })
        }
        PROC_EVENT_EXEC => Some(ProcessEvent::Executed { pid: id(1)?, at }),
        PROC_EVENT_EXIT if id(0)? == id(1)? => Some(ProcessEvent::Ended { pid: id(1)?, at }),
        _ => None,
    }
}

fn listen_request() -> [u8; HEADER_BYTES + 4] {
    let mut request = [0u8; HEADER_BYTES + 4];
    let mut put = |offset: usize, bytes: &[u8]| request[offset..offset + bytes.len()].copy_from_slice(bytes);
    // nlmsghdr: length, type, flags, sequence, port; then cn_msg: index, value, sequence, ack, length, flags.
    put(0, &((HEADER_BYTES + 4) as u32).to_ne_bytes());
    put(4, &(libc::NLMSG_DONE as u16).to_ne_bytes());
    put(16, &CN_IDX_PROC.to_ne_bytes());
    put(20, &CN_VAL_PROC.to_ne_bytes());
    put(32, &4u16.to_ne_bytes());
    put(HEADER_BYTES, &PROC_CN_MCAST_LISTEN.to_ne_bytes());
    request
}

fn bind(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: sockaddr_nl is plain numbers, for which all zeroes are valid.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address.nl_groups = CN_IDX_PROC;
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `address` is a valid sockaddr_nl of `length` bytes that outlives the call, which only reads it.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for room for many events. What is granted does: what is missed is noticed.
fn keep_much(socket: &OwnedFd) {
    for option in [libc::SO_RCVBUF, libc::SO_RCVBUFFORCE] {
        set_option(socket, option, &KEPT_BYTES);
    }
}

/// Has the kernel keep births and ends of threads to itself: they are many times more than those of processes.
fn drop_events_of_threads(socket: &OwnedFd) {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MISC, BPF_RET, BPF_TAX, BPF_W, BPF_X};
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The machine that runs this reads big-endian numbers, and the message has the host's own.
    let if_what = |what: u32, jt, jf| step(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, what.to_be());
    let load = |offset: usize| step(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset as u32);
    let first_of_its_process =
        |thread: usize, process: usize| [load(process), step(BPF_MISC | BPF_TAX, 0, 0, 0), load(thread)];
    let [fork_process, fork_keep, fork_thread] = first_of_its_process(DATA + 8, DATA + 12);
    let [exit_process, exit_keep, exit_thread] = first_of_its_process(DATA, DATA + 4);
    let mut program = [
        load(WHAT),
        if_what(PROC_EVENT_FORK, 2, 0),
        if_what(PROC_EVENT_EXIT, 5, 0),
        step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        fork_process,
        fork_keep,
        fork_thread,
        step(BPF_JMP | BPF_JEQ | BPF_X, 4, 5, 0),
        exit_process,
        exit_keep,
        exit_thread,
        step(BPF_JMP | BPF_JEQ | BPF_X, 0, 1, 0),
        step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        step(BPF_RET | BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(socket, libc::SO_ATTACH_FILTER, &filter);
}

/// Sets an option of the socket, as far as the kernel lets us.
fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a valid structure of `length` bytes that outlives the call, which only reads it (and,
    // for a filter, the program that it points to, which outlives it too).
    unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(what: u32, data: [u32; 4]) -> [u8; 128] {
        let mut message = [0u8; 128];
        message[WHAT..WHAT + 4].copy_from_slice(&what.to_ne_bytes());
        message[TIMESTAMP..TIMESTAMP + 8].copy_from_slice(&77u64.to_ne_bytes());
        for (index, number) in data.into_iter().enumerate() {
            message[DATA + 4 * index..][..4].copy_from_slice(&number.to_ne_bytes());
        }
        message
    }

    #[test]
    fn processes_are_told_and_threads_are_not() {
        let (parent, child, at) = (Pid::new(10), Pid::new(20), Timestamp::from_nanos(77));
        let parsed = |what, data| parse(&message(what, data));
        let forked = Some(ProcessEvent::Forked { parent, child, at });
        assert_eq!(parsed(PROC_EVENT_FORK, [11, 10, 20, 20]), forked);
        assert_eq!(parsed(PROC_EVENT_FORK, [11, 10, 12, 10]), None);
        assert_eq!(parsed(PROC_EVENT_EXEC, [20, 20, 0, 0]), Some(ProcessEvent::Executed { pid: child, at }));
        assert_eq!(parsed(PROC_EVENT_EXIT, [20, 20, 0, 17]), Some(ProcessEvent::Ended { pid: child, at }));
        assert_eq!(parsed(PROC_EVENT_EXIT, [21, 20, 0, 17]), None);
        assert_eq!(parsed(4, [1, 2, 3, 4]), None);
        assert_eq!(parse(&[0; 40]), None);
    }

    #[test]
    fn the_life_of_a_child_is_told_where_the_kernel_tells_anything() {
        let Ok(mut events) = ProcessEvents::listen() else { return };
        std::thread::spawn(|| ()).join().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::new(child.id());
        child.wait().unwrap();
        let told = events.take().unwrap();
        let own: Vec<_> = told
            .iter()
            .filter_map(|event| match event {
                ProcessEvent::Forked { child, .. } => (*child == pid).then_some("forked"),
                ProcessEvent::Executed { pid: it, .. } => (*it == pid).then_some("executed"),
                ProcessEvent::Ended { pid: it, .. } => (*it == pid).then_some("ended"),
            })
            .collect();
        assert_eq!(own, ["forked", "executed", "ended"]);
    }
}
