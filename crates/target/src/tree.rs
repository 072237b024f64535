//! Which processes belong to trees of processes: reported by the kernel if it does, else found by looking now and then.
//!
//! A process belongs to a tree from its birth by a member to its end, even if another process adopts it meanwhile. What is
//! done with the processes is up to `sampler::processes`.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use profiler_model::{Nanos, Pid, Timestamp};
use profiler_os::{ChildFinder, Process, ProcessEvent, ProcessEvents, clock};

/// Where the kernel tells no events, children are looked for this often at most ...
const SHORTEST_LOOK_GAP: Nanos = Nanos::from_nanos(10_000_000);

/// ... and looking takes at most one part in so many of our time.
const LOOK_SHARE: u64 = 50;

/// The process `root` and all its descendants at this moment, parents before their children, each with its parent.
pub fn family(root: Pid) -> Vec<(Pid, Option<Pid>)> {
    let (mut family, mut new) = (vec![(root, None)], vec![root]);
    let mut finder = ChildFinder::default();
    while !new.is_empty() {
        let mut found = finder.children_of(&new);
        found.retain(|(_, child)| family.iter().all(|(known, _)| known != child));
        new = found.iter().map(|(_, child)| *child).collect();
        family.extend(found.into_iter().map(|(parent, child)| (child, Some(parent))));
    }
    family
}

/// Something that happened in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A process was born, or found.
    Born {
        /// The process.
        pid: Pid,
        /// The root of its tree.
        root: Pid,
        /// The member that started it.
        parent: Pid,
        /// When, if it was born while the tree was watched.
        at: Option<Timestamp>,
    },
    /// It runs another program now.
    Executed {
        /// The process.
        pid: Pid,
        /// When.
        at: Timestamp,
    },
    /// It has ended.
    Ended {
        /// The process.
        pid: Pid,
        /// When it was, if that is reported, else when it was noticed.
        at: Timestamp,
    },
}

/// How changes become known.
#[derive(Debug)]
enum Source {
    /// The kernel reports them.
    Events(ProcessEvents),
    /// They are looked for; when next.
    Looks(Timestamp),
}

/// A process of a tree.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// The root of its tree.
    root: Pid,
    /// When it started, in the kernel's ticks, once that is known.
    start: Option<u64>,
}

/// The processes of trees of processes.
#[derive(Debug)]
pub struct Tree {
    processes: HashMap<Pid, Member>,
    /// Roots whose descendants were not looked for yet.
    new_roots: Vec<Pid>,
    /// Former processes that may still be listed as children, as their parent has not waited for them yet; each with when
    /// it started.
    gone: HashMap<Pid, u64>,
    source: Source,
    finder: ChildFinder,
}

impl Tree {
    /// Watches from now on, no tree yet.
    pub fn watch() -> Self {
        let source = ProcessEvents::listen().map_or(Source::Looks(Timestamp::default()), Source::Events);
        Tree {
            processes: HashMap::new(),
            new_roots: Vec::new(),
            gone: HashMap::new(),
            source,
            finder: ChildFinder::default(),
        }
    }

    /// Adds the tree below `root`: its descendants, and those that come.
    pub fn add_root(&mut self, root: Pid) {
        self.processes.insert(root, Member { root, start: None });
        self.new_roots.push(root);
    }

    /// Whether every birth, `exec` and end is reported.
    pub fn is_reported(&self) -> bool {
        matches!(self.source, Source::Events(_))
    }

    /// What has happened since this was last called; of a new tree, its processes.
    pub fn changes(&mut self, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        let new_roots = std::mem::take(&mut self.new_roots);
        self.find_children(new_roots, None, &mut changes);
        match &mut self.source {
            Source::Events(events) => match events.take() {
                Ok(reported) => reported.into_iter().for_each(|event| self.follow(event, &mut changes)),
                Err(_) => self.look_again(now, &mut changes),
            },
            Source::Looks(next) if now >= *next => {
                if self.finder.anything_new() {
                    self.find_all_children(now, &mut changes);
                }
                let after = clock::now();
                let pause = Nanos::from_nanos(after.since(now).as_nanos() * LOOK_SHARE);
                self.source = Source::Looks(after + pause.max(SHORTEST_LOOK_GAP));
            }
            Source::Looks(_) => {}
        }
        changes
    }

    /// Can be read when something has happened, in a tree or elsewhere; `None` if nothing is reported.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Events(events) => Some(events.descriptor()),
            Source::Looks(_) => None,
        }
    }

    /// Drops a member that lives on. Its descendants stay members.
    pub fn leave(&mut self, pid: Pid) {
        self.new_roots.retain(|root| *root != pid);
        self.processes.remove(&pid);
    }

    /// Drops a member that has ended.
    pub fn forget(&mut self, pid: Pid) {
        if let Some(Member { start: Some(start), .. }) = self.processes.remove(&pid) {
            self.gone.insert(pid, start);
        }
    }

    fn follow(&mut self, event: ProcessEvent, changes: &mut Vec<Change>) {
        match event {
            ProcessEvent::Forked { parent, child, at } => {
                if let Some(Member { root, .. }) = self.processes.get(&parent).copied()
                    && !self.processes.contains_key(&child)
                {
                    self.processes.insert(child, Member { root, start: None });
                    changes.push(Change::Born { pid: child, root, parent, at: Some(at) });
                }
            }
            ProcessEvent::Executed { pid, at } if self.processes.contains_key(&pid) => {
                changes.push(Change::Executed { pid, at });
            }
            // Its first thread may have ended alone. When the others have, sampling finds that out.
            ProcessEvent::Ended { pid, .. } if Process::new(pid).is_alive() => {}
            ProcessEvent::Ended { pid, at } if self.processes.remove(&pid).is_some() => {
                changes.push(Change::Ended { pid, at });
            }
            ProcessEvent::Executed { .. } | ProcessEvent::Ended { .. } => {}
        }
    }

    /// Adds the descendants of all processes, which are noticed at `now`.
    fn find_all_children(&mut self, now: Timestamp, changes: &mut Vec<Change>) {
        let parents = self.processes.keys().copied().collect();
        self.gone = self.find_children(parents, Some(now), changes);
    }

    /// Adds the descendants of `parents`, parents before their children. Returns the former processes that are still listed.
    fn find_children(
        &mut self,
        mut parents: Vec<Pid>,
        born: Option<Timestamp>,
        changes: &mut Vec<Change>,
    ) -> HashMap<Pid, u64> {
        let mut still_listed = HashMap::new();
        while !parents.is_empty() {
            let found = self.finder.children_of(&parents);
            parents.clear();
            for (parent, child) in found {
                let Some(Member { root, .. }) = self.processes.get(&parent).copied() else { continue };
                if self.processes.contains_key(&child) {
                    continue;
                }
                let start = Process::new(child).stat().ok().map(|stat| stat.start_time);
                match self.gone.get(&child) {
                    Some(known) if start.is_none_or(|start| start == *known) => {
                        still_listed.insert(child, *known);
                    }
                    _ => {
                        self.processes.insert(child, Member { root, start });
                        changes.push(Change::Born { pid: child, root, parent, at: born });
                        parents.push(child);
                    }
                }
            }
        }
        still_listed
    }

    /// Some events are missing: finds out by looking.
    fn look_again(&mut self, now: Timestamp, changes: &mut Vec<Change>) {
        let is_same = |pid: &Pid, member: &Member| {
            let process = Process::new(*pid);
            let stat = process.stat().ok().filter(|_| process.is_alive());
            stat.is_some_and(|stat| member.start.is_none_or(|start| start == stat.start_time))
        };
        self.processes.retain(|pid, member| {
            let stays = is_same(pid, member);
            if !stays {
                changes.push(Change::Ended { pid: *pid, at: now });
            }
            stays
        });
        self.find_all_children(now, changes);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell that starts a child of its own when it reads a line, tells its pid, and waits for it.
    fn shell() -> Child {
        let script = "read go; sleep 60 & echo $!; read end; kill $!; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn tree_below(root: Pid) -> Tree {
        let mut tree = Tree::watch();
        tree.add_root(root);
        tree
    }

    fn follows_a_child(mut tree: Tree, mut shell: Child) {
        let root = Pid::new(shell.id());
        // That the shell became a shell may still be told.
        assert!(!tree.changes(clock::now()).iter().any(|change| matches!(change, Change::Born { .. })));
        let mut stdin = shell.stdin.take().unwrap();
        stdin.write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let child = Pid::new(line.trim().parse().unwrap());
        let changes = tree.changes(Timestamp::MAX);
        // That the shell became one may be told only now.
        let is_birth = |change: &Change| matches!(change, Change::Born { pid, parent, at: Some(_), .. } if (*pid, *parent) == (child, root));
        assert!(changes.iter().any(is_birth), "{changes:?}");
        stdin.write_all(b"end\n").unwrap();
        shell.wait().unwrap();
        if tree.is_reported() {
            let changes = tree.changes(Timestamp::MAX);
            assert!(
                changes.iter().any(|change| matches!(change, Change::Ended { pid, .. } if *pid == child))
            );
            assert!(changes.iter().any(|change| matches!(change, Change::Ended { pid, .. } if *pid == root)));
        }
    }

    #[test]
    fn children_are_found_by_events_and_by_looking() {
        let told = shell();
        follows_a_child(tree_below(Pid::new(told.id())), told);
        let looked_at = shell();
        let mut tree = tree_below(Pid::new(looked_at.id()));
        tree.source = Source::Looks(Timestamp::default());
        follows_a_child(tree, looked_at);
    }

    #[test]
    fn an_ended_child_is_not_found_a_second_time() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::piped()).spawn().unwrap();
        let pid = Pid::new(child.id());
        let mut tree = tree_below(Pid::new(std::process::id()));
        tree.source = Source::Looks(Timestamp::default());
        let is_birth = |change: &Change| matches!(change, Change::Born { pid: born, .. } if *born == pid);
        assert!(tree.changes(clock::now()).iter().any(is_birth));
        child.kill().unwrap();
        // Its stdout is closed when it has ended; nobody has waited for it yet.
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        tree.forget(pid);
        for _ in 0..2 {
            let mut changes = Vec::new();
            tree.find_all_children(clock::now(), &mut changes);
            assert!(!changes.iter().any(is_birth), "{changes:?}");
        }
        child.wait().unwrap();
        tree.find_all_children(clock::now(), &mut Vec::new());
        assert!(!tree.gone.contains_key(&pid));
    }

    #[test]
    fn after_missed_events_those_that_are_gone_are_noticed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::new(child.id());
        let own = Pid::new(std::process::id());
        let mut tree = tree_below(own);
        assert!(tree.changes(clock::now()).contains(&Change::Born { pid, root: own, parent: own, at: None }));
        child.kill().unwrap();
        child.wait().unwrap();
        let (mut changes, now) = (Vec::new(), clock::now());
        tree.look_again(now, &mut changes);
        assert!(changes.contains(&Change::Ended { pid, at: now }), "{changes:?}");
    }
}
