//! `cargo xtask check-offsets`: recomputes the offsets of every CPython on this machine and compares.
//!
//! For each interpreter with its headers, `offsets.c` is compiled against them and run. For 3.6 to 3.12 its
//! numbers are compared with the tables, for later ones with what the crate `python` makes of the
//! interpreter's own description of itself. What no header tells is read from debug information (gdb).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use profiler_python::{
    COOKIE, MAX_DEBUG_OFFSETS_BYTES, ManagedAttributes, Offsets, ValueOffsets, VariableLayout, Version,
    offsets_for, parse_debug_offsets,
};

use crate::prepare::{Options, roots_folder};
use crate::run::target_folder;

const PROGRAM: &str = include_str!("offsets.c");

/// The minor versions that are supported; each should be there.
const MINORS: std::ops::RangeInclusive<u8> = 6..=15;

/// Prefixes of what 3.6 keeps in variables of their own: its headers and its table have nothing to compare.
const SEPARATE_IN_3_6: [&str; 2] = ["gil.", "runtime."];

/// What no header describes up to 3.10, in terms of debug information.
const DICTIONARY_KEYS: [(&str, &str); 3] = [
    ("dict.index_slots", "(long)&((struct _dictkeysobject *)0)->dk_size"),
    ("dict.entry_count", "(long)&((struct _dictkeysobject *)0)->dk_nentries"),
    ("dict.indices", "(long)&((struct _dictkeysobject *)0)->dk_indices"),
];

/// Fields by name, as `offsets.c` prints them.
type Fields = BTreeMap<String, u64>;

/// A CPython with its headers.
struct Interpreter {
    /// `include/python3.x`.
    headers: PathBuf,
    /// The system headers that belong to it, where it lies in a root folder of its own.
    system_headers: Option<PathBuf>,
    /// The file that holds `_PyRuntime`.
    binary: PathBuf,
    /// Whether to treat the headers as those of the free-threaded build, of which there is no binary.
    free_threaded: bool,
}

/// Compares all; an error when any differs or, where skipping is forbidden, when any version is not there.
pub fn run(arguments: &[String]) -> Result<()> {
    let folder = target_folder().join("check-offsets");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut missing: BTreeSet<u8> = MINORS.collect();
    let mut different = 0;
    for interpreter in interpreters() {
        let (version, report) = compare(&interpreter, &folder)
            .with_context(|| format!("checking the offsets in {}", interpreter.headers.display()))?;
        missing.remove(&version.minor);
        different += usize::from(!report.differences.is_empty());
        print_report(&interpreter, version, &report);
    }
    let names: Vec<String> = missing.iter().map(|minor| format!("3.{minor}")).collect();
    if !names.is_empty() {
        println!("not on this machine, so not checked: {}", names.join(", "));
    }
    ensure!(different == 0, "the offsets of {different} interpreters differ from the tables");
    let complete = names.is_empty() || !Options::parse(arguments).no_skip;
    ensure!(complete, "without {} this check is not whole", names.join(", "));
    Ok(())
}

fn print_report(interpreter: &Interpreter, version: Version, report: &Report) {
    let build = if interpreter.free_threaded { " free-threaded" } else { "" };
    let verdict = match report.differences.len() {
        0 => format!("{} fields agree", report.agreed),
        count => format!("{count} fields DIFFER"),
    };
    let unchecked = match report.unchecked.as_slice() {
        [] => String::new(),
        names => format!(" (not checked: {})", names.join(", ")),
    };
    println!("{version}{build}: {verdict}{unchecked}: {}", interpreter.headers.display());
    for difference in &report.differences {
        println!("  {difference}");
    }
}

/// Every interpreter on this machine that has its headers.
fn interpreters() -> Vec<Interpreter> {
    let mut found = Vec::new();
    for prefix in pyenv_root().iter().flat_map(|pyenv| subfolders(&pyenv.join("versions"))) {
        add_from(&prefix, None, &mut found);
    }
    add_from(Path::new("/usr"), None, &mut found);
    for chroot in subfolders(&roots_folder()) {
        let prefix = chroot.join("usr");
        add_from(&prefix, Some(prefix.join("include")), &mut found);
    }
    found
}

/// The interpreters installed under `prefix`.
fn add_from(prefix: &Path, system_headers: Option<PathBuf>, found: &mut Vec<Interpreter>) {
    for headers in subfolders(&prefix.join("include")) {
        let Some(name) = headers.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.starts_with("python3.") || !headers.join("Python.h").exists() {
            continue;
        }
        let candidates = [prefix.join(format!("lib/lib{name}.so.1.0")), prefix.join("bin").join(name)];
        let Some(binary) = candidates.into_iter().find(|path| path.is_file()) else { continue };
        let interpreter = |free_threaded| Interpreter {
            headers: headers.clone(),
            system_headers: system_headers.clone(),
            binary: binary.clone(),
            free_threaded,
        };
        found.push(interpreter(false));
        // From 3.14 on the headers alone say how a free-threaded build would describe itself.
        if headers.join("internal/pycore_debug_offsets.h").exists() {
            found.push(interpreter(true));
        }
    }
}

/// The root folder of pyenv, if there is one.
pub(crate) fn pyenv_root() -> Option<PathBuf> {
    if let Some(root) = std::env::var_os("PYENV_ROOT") {
        return Some(PathBuf::from(root));
    }
    let asked = Command::new("pyenv").arg("root").output().ok().filter(|output| output.status.success());
    match asked.and_then(|output| String::from_utf8(output.stdout).ok()) {
        Some(path) => Some(PathBuf::from(path.trim())),
        None => std::env::home_dir().map(|home| home.join(".pyenv")).filter(|path| path.is_dir()),
    }
}

/// The folders in `folder`, sorted.
pub(crate) fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// What comparing one interpreter gave.
#[derive(Default)]
struct Report {
    agreed: usize,
    unchecked: Vec<String>,
    differences: Vec<String>,
}

fn compare(interpreter: &Interpreter, folder: &Path) -> Result<(Version, Report)> {
    let program = compile(interpreter, folder)?;
    let mut theirs = fields_printed(&printed(&program, &[])?)?;
    let version = Version::from_hex(theirs.remove("version").context("no version was printed")?);
    if version.minor <= 10 {
        theirs.extend(dictionary_keys(&interpreter.binary)?);
    }
    let offsets = match (version.minor, interpreter.free_threaded) {
        (..=12, _) => offsets_for(version)?,
        (_, false) => described(&interpreter.binary)?,
        (_, true) => parse_debug_offsets(&printed(&program, &["describe"])?)?,
    };
    ensure!(
        offsets.version == version,
        "the headers are of {version}, the interpreter is {}",
        offsets.version
    );
    ensure!(offsets.free_threaded == interpreter.free_threaded, "the build is free-threaded or is not");
    Ok((version, differences(&fields(&offsets), &theirs, version)))
}

fn differences(ours: &Fields, theirs: &Fields, version: Version) -> Report {
    let mut report = Report::default();
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        if version.minor == 6 && SEPARATE_IN_3_6.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        match (ours.get(name), theirs.get(name)) {
            (Some(ours), Some(theirs)) if ours == theirs => report.agreed += 1,
            (Some(_), None) if is_beyond_headers(name, version) => report.unchecked.push(name.clone()),
            (ours, theirs) => report.differences.push(format!(
                "{name}: we have {}, CPython has {}",
                ours.map_or("nothing".into(), u64::to_string),
                theirs.map_or("nothing".into(), u64::to_string)
            )),
        }
    }
    report
}

/// Whether only debug information could have told, and there was none.
fn is_beyond_headers(name: &str, version: Version) -> bool {
    version.minor <= 10 && DICTIONARY_KEYS.iter().any(|(field, _)| *field == name)
}

fn compile(interpreter: &Interpreter, folder: &Path) -> Result<PathBuf> {
    let source = folder.join("offsets.c");
    let program = folder.join("offsets");
    fs::write(&source, PROGRAM)?;
    let mut compiler = Command::new("gcc");
    compiler.args(["-w", "-DNDEBUG", "-I"]).arg(&interpreter.headers);
    compiler.arg("-I").arg(interpreter.headers.join("internal"));
    if let Some(system) = &interpreter.system_headers {
        // After this machine's own, which must stay one whole: only what is not here comes from there.
        compiler.arg("-idirafter").arg(system);
    }
    if interpreter.free_threaded {
        compiler.arg("-DPy_GIL_DISABLED=1");
    }
    let output = compiler.arg(&source).arg("-o").arg(&program).output().context("running gcc")?;
    ensure!(output.status.success(), "gcc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

fn printed(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    Ok(output.stdout)
}

fn fields_printed(output: &[u8]) -> Result<Fields> {
    std::str::from_utf8(output)?
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').context("a line without a value")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// The dictionary's keys from the binary's debug information; empty where it has none or gdb is missing.
fn dictionary_keys(binary: &Path) -> Result<Fields> {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch"]);
    for (name, expression) in DICTIONARY_KEYS {
        gdb.arg("-ex").arg(format!("printf \"{name} %ld\\n\", {expression}"));
    }
    let Ok(output) = gdb.arg(binary).output() else { return Ok(Fields::new()) };
    let printed: Vec<&[u8]> = output
        .stdout
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"dict."))
        .collect();
    fields_printed(&printed.concat())
}

/// What the interpreter says of itself, in its file.
fn described(binary: &Path) -> Result<Offsets> {
    let file = fs::read(binary)?;
    let starts =
        file.windows(COOKIE.len()).enumerate().filter(|(_, window)| window == COOKIE).map(|(at, _)| at);
    for start in starts {
        let end = file.len().min(start + MAX_DEBUG_OFFSETS_BYTES);
        if let Ok(offsets) = parse_debug_offsets(&file[start..end]) {
            return Ok(offsets);
        }
    }
    bail!("{} holds no debug offsets that can be used", binary.display())
}

/// Our offsets in the form that `offsets.c` prints.
fn fields(offsets: &Offsets) -> Fields {
    let mut fields = object_fields(offsets);
    fields.extend(value_fields(&offsets.values));
    fields.extend(runtime_fields(offsets));
    fields.extend(code_fields(offsets));
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), u64::from(value?)))).collect()
}

type Named = Vec<(&'static str, Option<u32>)>;

fn runtime_fields(offsets: &Offsets) -> Named {
    let Offsets { runtime, interpreter, gil, thread, .. } = offsets;
    vec![
        ("runtime.interpreters_head", Some(runtime.interpreters_head.offset())),
        ("runtime.gil", runtime.gil),
        ("runtime.gc_collecting", runtime.gc_collecting.map(|field| field.offset())),
        ("interpreter.next", Some(interpreter.next.offset())),
        ("interpreter.id", interpreter.id.map(|field| field.offset())),
        ("interpreter.threads_head", Some(interpreter.threads_head.offset())),
        ("interpreter.gil", interpreter.gil.map(|field| field.offset())),
        ("interpreter.gc_collecting", interpreter.gc_collecting.map(|field| field.offset())),
        ("interpreter.modules", Some(interpreter.modules.offset())),
        ("interpreter.code_count", interpreter.code_count.map(|count| count.offset())),
        ("gil.last_holder", Some(gil.last_holder.offset())),
        ("gil.locked", Some(gil.locked.offset())),
        ("gil.switch_number", Some(gil.switch_number.offset())),
        ("gil.enabled", gil.enabled.map(|field| field.offset())),
        ("gil.code_count", gil.code_count.map(|count| count.offset())),
        ("gil.size", Some(gil.size)),
        ("thread.next", Some(thread.next.offset())),
        ("thread.interpreter", Some(thread.interpreter.offset())),
        ("thread.frame", Some(thread.frame.offset())),
        ("thread.cframe_current_frame", thread.cframe_current_frame.map(|field| field.offset())),
        ("thread.thread_id", Some(thread.thread_id.offset())),
        ("thread.native_thread_id", thread.native_thread_id.map(|field| field.offset())),
        ("thread.datastack_chunk", thread.datastack_chunk.map(|field| field.offset())),
        ("thread.datastack_top", thread.datastack_top.map(|field| field.offset())),
        ("thread.base_frame", thread.base_frame.map(|field| field.offset())),
    ]
}

fn code_fields(offsets: &Offsets) -> Named {
    let Offsets { frame, code, .. } = offsets;
    vec![
        ("frame.previous", Some(frame.previous.offset())),
        ("frame.code", Some(frame.code.offset())),
        ("frame.code_tag_bits", Some(frame.code_tag_bits)),
        ("frame.instruction", Some(frame.instruction)),
        ("frame.is_entry", frame.is_entry.map(|field| field.offset())),
        ("frame.owner", frame.owner.map(|field| field.offset())),
        ("frame.bytecode_copy", frame.bytecode_copy.map(|field| field.offset())),
        ("frame.executing", frame.executing.map(|executing| executing.mark.offset())),
        ("frame.executing_value", frame.executing.map(|executing| executing.value as u32)),
        ("frame.shim_owners", Some(frame.shim_owners.iter().map(|owner| 1 << owner).sum())),
        ("code.filename", Some(code.filename.offset())),
        ("code.name", Some(code.name.offset())),
        ("code.qualname", code.qualname.map(|field| field.offset())),
        ("code.first_line", Some(code.first_line.offset())),
        ("code.line_table", Some(code.line_table.offset())),
        ("code.version", code.version.map(|field| field.offset())),
        ("code.bytecode", code.bytecode),
        ("code.bytecode_copies", code.bytecode_copies.map(|field| field.offset())),
        ("code.bytecode_units", code.bytecode_units.map(|field| field.offset())),
    ]
}

fn object_fields(offsets: &Offsets) -> Named {
    let Offsets { object, unicode, bytes, dict, long, .. } = offsets;
    let (values, dictionary, either) = match object.managed_attributes {
        ManagedAttributes::None => (None, None, None),
        ManagedAttributes::ValuesOrDict { values_before, dict_before } => {
            (Some(values_before), Some(dict_before), None)
        }
        ManagedAttributes::Tagged { before } => (None, None, Some(before)),
        ManagedAttributes::Inline { dict_before } => (None, Some(dict_before), None),
    };
    vec![
        ("object.object_type", Some(object.object_type.offset())),
        ("object.type_name", Some(object.type_name.offset())),
        ("object.type_flags", Some(object.type_flags.offset())),
        ("object.type_basic_size", Some(object.type_basic_size.offset())),
        ("object.type_dict_offset", Some(object.type_dict_offset.offset())),
        ("object.type_cached_keys", Some(object.type_cached_keys.offset())),
        ("object.values_before", values),
        ("object.dict_before", dictionary),
        ("object.dict_or_values_before", either),
        ("unicode.length", Some(unicode.length.offset())),
        ("unicode.state", Some(unicode.state.offset())),
        ("unicode.kind_shift", Some(unicode.kind_shift)),
        ("unicode.ascii_data", Some(unicode.ascii_data)),
        ("unicode.compact_data", Some(unicode.compact_data)),
        ("unicode.data", Some(unicode.data.offset())),
        ("bytes.length", Some(bytes.length.offset())),
        ("bytes.data", Some(bytes.data)),
        ("dict.keys", Some(dict.keys.offset())),
        ("dict.values", Some(dict.values.offset())),
        ("dict.index_slots", dict.index_slots.map(|field| field.offset())),
        ("dict.log2_index_slots", dict.log2_index_slots.map(|field| field.offset())),
        ("dict.log2_index_bytes", dict.log2_index_bytes.map(|field| field.offset())),
        ("dict.kind", dict.kind.map(|field| field.offset())),
        ("dict.entry_count", Some(dict.entry_count.offset())),
        ("dict.indices", Some(dict.indices)),
        ("dict.values_start", Some(dict.values_start)),
        ("long.size", Some(long.size.offset())),
        ("long.digits", Some(long.digits)),
        ("long.tag_bits", Some(long.tag_bits)),
    ]
}

fn value_fields(values: &ValueOffsets) -> Named {
    let (apart, together) = match values.variables {
        VariableLayout::Apart { locals, shared, outer } => {
            ([locals, shared, outer].map(|field| Some(field.offset())), [None; 2])
        }
        VariableLayout::Together { names, kinds } => {
            ([None; 3], [names, kinds].map(|field| Some(field.offset())))
        }
    };
    vec![
        ("values.frame_variables", Some(values.frame_variables)),
        ("values.locals", apart[0]),
        ("values.shared", apart[1]),
        ("values.outer", apart[2]),
        ("values.names", together[0]),
        ("values.kinds", together[1]),
        ("values.arguments", Some(values.arguments.offset())),
        ("values.keyword_arguments", Some(values.keyword_arguments.offset())),
        ("values.code_flags", Some(values.code_flags.offset())),
        ("values.type_dict", Some(values.type_dict.offset())),
        ("values.body", Some(values.body)),
        ("values.item_count", Some(values.item_count.offset())),
        ("values.tuple_items", Some(values.tuple_items)),
        ("values.list_items", Some(values.list_items.offset())),
        ("values.set_used", Some(values.set_used.offset())),
        ("values.set_mask", Some(values.set_mask.offset())),
        ("values.set_table", Some(values.set_table.offset())),
        ("values.dict_used", Some(values.dict_used.offset())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields_of(pairs: &[(&str, u64)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn what_differs_or_is_missing_on_either_side_is_reported() {
        let version = Version { major: 3, minor: 8, micro: 0, release: 0xF0 };
        let ours = fields_of(&[("a", 1), ("b", 2), ("c", 3), ("dict.indices", 40)]);
        let theirs = fields_of(&[("a", 1), ("b", 5), ("d", 4)]);
        let report = differences(&ours, &theirs, version);
        assert_eq!(report.agreed, 1);
        assert_eq!(report.unchecked, ["dict.indices"]);
        assert_eq!(
            report.differences,
            [
                "b: we have 2, CPython has 5",
                "c: we have 3, CPython has nothing",
                "d: we have nothing, CPython has 4"
            ]
        );
    }
}
