//! Where the kernel's own structures of a thread, of its open files and of its ids have what the programs look at, from
//! the kernel's type information (BTF). Only this is looked for: to have all of it in memory takes 20 MB.

use std::fs::File;
use std::io::Read;

use crate::btf::{POINTER, PROTOTYPE, TYPEDEF, Type, Types};

/// The kernel's types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// They take some 6 MB; more than this are not read.
const MAX_BYTES: u64 = 64 << 20;

/// What the programs look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskLayout {
    /// The offsets of `task_fields` in `program/tasks.h`.
    pub(crate) task: [u32; 4],
    /// Those of `file_fields`; `None` where the kernel has its open files otherwise than is known.
    pub(crate) file: Option<[u32; 10]>,
}

/// What stands there, as the way from the structure of a thread.
const TASK_FIELDS: [&[&str]; 4] =
    [&["pid"], &["se", "sum_exec_runtime"], &["sched_info", "pcount"], &["sched_info", "last_arrival"]];

/// The same for open files, each from a structure of its own.
const FILE_FIELDS: [(&str, &[&str]); 10] = [
    ("task_struct", &["files"]),
    ("files_struct", &["fdt"]),
    ("fdtable", &["max_fds"]),
    ("fdtable", &["fd"]),
    ("file", &["f_inode"]),
    ("file", &["f_path", "dentry"]),
    ("inode", &["i_mode"]),
    ("inode", &["i_sb"]),
    ("super_block", &["s_magic"]),
    ("dentry", &["d_name", "name"]),
];

/// The same for ids (`id_fields` in `program/ids.h`); of the table of a process's numbers the second one is its id
/// (`PIDTYPE_TGID`).
const ID_FIELDS: [(&str, &[&str], u32); 5] = [
    ("task_struct", &["thread_pid"], 0),
    ("task_struct", &["signal"], 0),
    ("signal_struct", &["pids"], 8),
    ("pid", &["level"], 0),
    ("pid", &["numbers"], 0),
];

/// A number, and in which namespace it is one: the program has the same structure.
const NUMBER_FIELDS: [(&str, &[&str], u32); 2] = [("upid", &["nr"], 0), ("upid", &["ns"], 8)];

/// Why the programs cannot be told what to look at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The kernel does not describe its types, or not all that are needed.
    Types(String),
    /// What the programs are told at a switch of threads is not what they expect.
    Switches,
}

impl<T: Into<String>> From<T> for Unfit {
    fn from(reason: T) -> Self {
        Unfit::Types(reason.into())
    }
}

/// The types of the running kernel.
///
/// # Errors
/// Says why they cannot be had.
pub(crate) fn types_of_kernel() -> Result<Vec<u8>, Unfit> {
    let mut bytes = Vec::new();
    let file = File::open(TYPES).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Where ids are, by these types; `None` where that is otherwise than is known.
pub(crate) fn id_fields(bytes: &[u8]) -> Option<[u32; 5]> {
    let types = Types::parse(bytes)?;
    let offset = |structure, way| types.structures(structure).find_map(|one| types.offset(one, way));
    if !NUMBER_FIELDS.iter().all(|(structure, way, expected)| offset(structure, way) == Some(*expected)) {
        return None;
    }
    let mut fields = [0; 5];
    for (field, (structure, way, further)) in fields.iter_mut().zip(ID_FIELDS) {
        *field = offset(structure, way)?.checked_add(further)?;
    }
    Some(fields)
}

/// The layout by these types.
///
/// # Errors
/// Says why it is not known.
pub(crate) fn of_types(bytes: &[u8]) -> Result<TaskLayout, Unfit> {
    let types = Types::parse(bytes).ok_or("they cannot be read")?;
    if !types.switch_is_told_as_expected().unwrap_or(false) {
        // Linux 5.17 does not tell the state, and the first 5.18 tells it in another place.
        return Err(Unfit::Switches);
    }
    let task = types.structures("task_struct").next().ok_or("they have no task_struct")?;
    let mut layout = TaskLayout { file: types.file_layout(), ..TaskLayout::default() };
    for (offset, way) in layout.task.iter_mut().zip(TASK_FIELDS) {
        *offset = types.offset(task, way).ok_or_else(|| format!("a thread has no {}", way.join(".")))?;
    }
    Ok(layout)
}

impl Types<'_> {
    /// Whether `sched_switch` tells whether it was forced, the thread that leaves, the one that comes, and the state.
    fn switch_is_told_as_expected(&self) -> Option<bool> {
        let is_it = |one: &Type| self.name(one.name) == Some(b"btf_trace_sched_switch");
        let switch = self.all().find(|one| one.kind == TYPEDEF && is_it(one))?;
        let prototype = self.meant_by(self.meant_by(switch)?)?;
        let is_pointer = |index: usize| Some(self.parameter(prototype, index)?.kind == POINTER);
        if prototype.kind != PROTOTYPE || prototype.members != 5 {
            return Some(false);
        }
        // Before them comes what the program was registered with.
        Some(!is_pointer(1)? && is_pointer(2)? && is_pointer(3)? && !is_pointer(4)?)
    }

    fn file_layout(&self) -> Option<[u32; 10]> {
        let mut layout = [0; 10];
        for (offset, (structure, way)) in layout.iter_mut().zip(FILE_FIELDS) {
            *offset = self.structures(structure).find_map(|one| self.offset(one, way))?;
        }
        Some(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::{MAGIC, STRUCTURE};

    const NAMES: &[u8] = b"\0task_struct\0pid\0se\0sum_exec_runtime\0sched_info\0pcount\0last_arrival\0\
        btf_trace_sched_switch\0thread_pid\0signal\0signal_struct\0pids\0level\0numbers\0upid\0nr\0ns\0\
        files\0files_struct\0fdt\0fdtable\0max_fds\0fd\0file\0f_inode\0f_path\0dentry\0inode\0i_mode\0i_sb\0super_block\0s_magic\0d_name\0name\0";

    fn name(wanted: &str) -> u32 {
        let with_ends = [b"\0", wanted.as_bytes(), b"\0"].concat();
        NAMES.windows(with_ends.len()).position(|window| window == with_ends).unwrap() as u32 + 1
    }

    /// A structure with members of these names, types and offsets in bytes.
    fn structure(named: u32, members: &[(u32, u32, u32)]) -> Vec<u32> {
        let head = [named, STRUCTURE << 24 | members.len() as u32, 0];
        let members = members.iter().flat_map(|(name, inner, offset)| [*name, *inner, offset * 8]);
        head.into_iter().chain(members).collect()
    }

    fn prototype(parameters: &[u32]) -> Vec<u32> {
        let head = [0, PROTOTYPE << 24 | parameters.len() as u32, 0];
        head.into_iter().chain(parameters.iter().flat_map(|inner| [0, *inner])).collect()
    }

    fn types(types: &[Vec<u32>]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let sections = [24, 0, types.len() as u32, types.len() as u32, NAMES.len() as u32];
        let head = [u32::from(MAGIC) | 1 << 16].into_iter().chain(sections);
        let head: Vec<u8> = head.flat_map(u32::to_le_bytes).collect();
        [head, types, NAMES.to_vec()].concat()
    }

    fn of_a_kernel() -> Vec<Vec<u32>> {
        vec![
            // A number of 32 bits.
            vec![0, 1 << 24, 4, 32],
            structure(0, &[(name("sum_exec_runtime"), 1, 16)]),
            structure(0, &[(name("pcount"), 1, 0), (name("last_arrival"), 1, 8)]),
            // Without a name: its members are those of the structure that it lies in.
            structure(0, &[(name("pid"), 1, 4), (name("se"), 2, 32)]),
            structure(name("task_struct"), &[(0, 4, 128), (name("sched_info"), 3, 1000)]),
            vec![0, POINTER << 24, 5],
            prototype(&[6, 1, 6, 6, 1]),
            vec![0, POINTER << 24, 7],
            vec![name("btf_trace_sched_switch"), TYPEDEF << 24, 8],
        ]
    }

    /// The same with open files; a path and a name are constant ones, as in newer kernels.
    fn with_files() -> Vec<Vec<u32>> {
        let mut all = of_a_kernel();
        all[4] = structure(
            name("task_struct"),
            &[(0, 4, 128), (name("sched_info"), 3, 1000), (name("files"), 1, 1824)],
        );
        all.extend([
            structure(name("files_struct"), &[(name("fdt"), 1, 32)]),
            structure(name("fdtable"), &[(name("max_fds"), 1, 0), (name("fd"), 1, 8)]),
            // A driver's, which has the name in common with the kernel's.
            structure(name("file"), &[(name("fd"), 1, 8)]),
            structure(name("file"), &[(name("f_inode"), 1, 24), (name("f_path"), 15, 64)]),
            structure(0, &[(name("dentry"), 1, 8)]),
            vec![0, 10 << 24, 14],
            structure(name("inode"), &[(name("i_mode"), 1, 0), (name("i_sb"), 1, 40)]),
            structure(name("super_block"), &[(name("s_magic"), 1, 96)]),
            structure(name("dentry"), &[(name("d_name"), 19, 32)]),
            vec![0, 10 << 24, 20],
            structure(0, &[(name("name"), 1, 8)]),
        ]);
        all
    }

    #[test]
    fn members_are_found_in_what_has_a_name_and_what_has_none() {
        let layout = TaskLayout { task: [132, 176, 1000, 1008], file: None };
        assert_eq!(of_types(&types(&of_a_kernel())), Ok(layout));
    }

    #[test]
    fn what_an_open_file_is_stands_in_several_structures() {
        let found = of_types(&types(&with_files())).unwrap();
        assert_eq!(found.file, Some([1824, 32, 0, 8, 24, 72, 0, 40, 96, 40]));
        // Without one of them nothing is known of any.
        let mut without = with_files();
        without[12] = structure(name("file"), &[(name("f_inode"), 1, 24)]);
        assert_eq!(of_types(&types(&without)).unwrap(), TaskLayout { file: None, ..found });
        // A type that says something of itself.
        let mut endless = with_files();
        endless[14] = vec![0, 10 << 24, 15];
        assert_eq!(of_types(&types(&endless)).unwrap().file, None);
    }

    /// With ids: a thread's numbers are a structure of their own, each with its namespace.
    fn with_ids() -> Vec<Vec<u32>> {
        let mut all = of_a_kernel();
        all[4] = structure(
            name("task_struct"),
            &[
                (0, 4, 128),
                (name("sched_info"), 3, 1000),
                (name("thread_pid"), 1, 1400),
                (name("signal"), 1, 1848),
            ],
        );
        all.extend([
            structure(name("signal_struct"), &[(name("pids"), 1, 168)]),
            structure(name("pid"), &[(name("level"), 1, 4), (name("numbers"), 1, 96)]),
            structure(name("upid"), &[(name("nr"), 1, 0), (name("ns"), 1, 8)]),
        ]);
        all
    }

    #[test]
    fn ids_stand_where_all_of_them_are_as_expected() {
        // The process's numbers are the second of the four of its signals.
        assert_eq!(id_fields(&types(&with_ids())), Some([1400, 1848, 176, 4, 96]));
        assert_eq!(id_fields(&types(&of_a_kernel())), None);
        let mut otherwise = with_ids();
        otherwise[11] = structure(name("upid"), &[(name("nr"), 1, 0), (name("ns"), 1, 16)]);
        assert_eq!(id_fields(&types(&otherwise)), None);
        let whole = types(&with_ids());
        for length in 0..whole.len() {
            let _ = id_fields(&whole[..length]);
        }
    }

    #[test]
    fn kernels_that_tell_of_switches_otherwise_are_refused() {
        for parameters in [&[6, 1, 6, 6][..], &[6, 1, 1, 6, 6], &[6, 1, 6, 6, 1, 1]] {
            let mut older = of_a_kernel();
            older[6] = prototype(parameters);
            assert!(of_types(&types(&older)).is_err(), "{parameters:?}");
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_said() {
        let mut without = of_a_kernel();
        without[4].truncate(6);
        without[4][1] -= 1;
        let missing = Err(Unfit::Types("a thread has no sched_info.pcount".to_owned()));
        assert_eq!(of_types(&types(&without)), missing);
        let whole = types(&of_a_kernel());
        for length in 0..whole.len() {
            let _ = of_types(&whole[..length]);
        }
        assert!(of_types(&whole[..40]).is_err() && of_types(b"").is_err());
        // One that contains itself.
        let mut endless = of_a_kernel();
        endless[3] = structure(0, &[(0, 4, 0)]);
        assert_eq!(of_types(&types(&endless)), Err(Unfit::Types("a thread has no pid".to_owned())));
    }
}
