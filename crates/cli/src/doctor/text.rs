//! The report for people: facts by section, then what stands in the way.

use std::io::{self, Write};

use profiler_dump::{Examination, ExaminedThread, Gils, Location};
use profiler_model::{InterpreterId, OtherPython};
use profiler_os::host::{Answer, CAPABILITIES, CapabilitySet, Host, ProcMount};
use profiler_output::escaped_text;
use profiler_python::Evidence;

use super::report::{ProcessReport, PythonReport, Report, is_sampled};
use crate::failure::Failure;
use crate::messages::{counted, grouped};

/// Where the values stand.
const VALUE_COLUMN: usize = 18;

/// Prints the report.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    section(out, "Host", host_facts(report))?;
    writeln!(out)?;
    section(out, "Sampler", sampler_facts(report))?;
    if let Some(process) = &report.process {
        writeln!(out)?;
        section(out, &format!("Process {}", process.pid), process_facts(process))?;
    }
    writeln!(out)?;
    write_verdict(report, out)
}

/// A name and what is to say of it.
type Fact = (&'static str, String);

fn section(out: &mut dyn Write, title: &str, facts: Vec<Fact>) -> io::Result<()> {
    writeln!(out, "{title}")?;
    for (name, value) in facts {
        writeln!(out, "  {name:VALUE_COLUMN$}{}", escaped_text(&value))?;
    }
    Ok(())
}

fn host_facts(report: &Report) -> Vec<Fact> {
    let host = &report.host;
    vec![
        ("kernel", format!("Linux {}, {}", host.kernel, std::env::consts::ARCH)),
        ("user", host.user.to_string()),
        ("user namespace", user_namespace(host).to_owned()),
        ("container", container(host)),
        ("system calls", if host.has_filter { "filtered (seccomp)" } else { "not filtered" }.to_owned()),
        ("capabilities", capabilities(host.effective)),
        ("bounding set", bounding(host)),
        ("ptrace_scope", ptrace_scope(host.ptrace_scope)),
        ("reading memory", reading(report).to_owned()),
        ("stopping threads", stopping(report)),
        ("/proc", proc_mount(host.proc_mount.as_ref())),
        ("perf events", perf_events(host)),
        ("BPF", bpf(host)),
    ]
}

fn user_namespace(host: &Host) -> &'static str {
    match host.in_first_user_namespace {
        true => "the host's own",
        false => "another than the host's: capabilities count only inside of it",
    }
}

fn container(host: &Host) -> String {
    host.container.map_or("no sign of one".to_owned(), |kind| format!("{kind}, by its marks"))
}

/// The capabilities in a set that matter here.
fn capabilities(set: CapabilitySet) -> String {
    let names = CAPABILITIES.iter().filter(|(_, number)| set.has(*number)).map(|(name, _)| *name);
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none of those that matter here".to_owned() } else { names.join(", ") }
}

fn bounding(host: &Host) -> String {
    match CAPABILITIES.iter().filter(|(_, number)| !host.bounding.has(*number)).count() {
        0 => "all of those that matter here can be had".to_owned(),
        _ => format!("can be had: {}", capabilities(host.bounding)),
    }
}

fn ptrace_scope(scope: Option<i32>) -> String {
    let meaning = match scope {
        None => return "none: processes of one's own may be looked into".to_owned(),
        Some(0) => "processes of one's own may be looked into",
        Some(1) => "without CAP_SYS_PTRACE, only child processes may be looked into",
        Some(2) => "only with CAP_SYS_PTRACE processes may be looked into",
        Some(_) => "no process may be looked into",
    };
    scope.map_or_else(String::new, |value| format!("{value}: {meaning}"))
}

fn reading(report: &Report) -> &'static str {
    match &report.self_test {
        Ok(self_test) if self_test.reads_by_call => "process_vm_readv works",
        Ok(self_test) if self_test.reads => "process_vm_readv does not work, /proc/PID/mem does",
        Ok(_) => "not permitted, not even of a child process",
        Err(_) => "could not be tried",
    }
}

fn stopping(report: &Report) -> String {
    match report.self_test.as_ref().map(|self_test| self_test.stops) {
        Ok(Ok(())) => "ptrace works".to_owned(),
        Ok(Err(error)) => format!("ptrace does not work on a child process: {error}"),
        Err(_) => "could not be tried".to_owned(),
    }
}

fn proc_mount(mount: Option<&ProcMount>) -> String {
    let Some(mount) = mount else { return "it cannot be seen how it is mounted".to_owned() };
    let hidden = match &mount.hidepid {
        None => "shows every process".to_owned(),
        Some(value) => format!("hides the processes of others (hidepid={value})"),
    };
    if mount.only_processes { format!("{hidden}, and no settings (subset=pid)") } else { hidden }
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Allowed => "allowed",
        Answer::Refused => "refused",
        Answer::Missing => "not in this kernel",
    }
}

fn setting(name: &str, value: Option<i32>) -> String {
    value.map_or_else(|| format!("no {name}"), |value| format!("{name} {value}"))
}

fn perf_events(host: &Host) -> String {
    let paranoid = setting("perf_event_paranoid", host.perf_event_paranoid);
    format!("perf_event_open {}; {paranoid}", answer(host.perf_event_open))
}

fn bpf(host: &Host) -> String {
    let disabled = setting("unprivileged_bpf_disabled", host.unprivileged_bpf_disabled);
    let types = if host.has_btf { "BTF there" } else { "no BTF" };
    let lockdown = match host.lockdown.as_deref() {
        None | Some("none") => String::new(),
        Some(level) => format!("; locked down for {level}"),
    };
    format!("bpf {}; {disabled}; {types}{lockdown}", answer(host.bpf))
}

fn sampler_facts(report: &Report) -> Vec<Fact> {
    let fit = |can: bool, what: &str| format!("{what}{}", if can { "" } else { "; does not work here" });
    let (can_stop, can_read) = (report.can_stop() && report.can_read(), report.can_read());
    let in_kernel = match &report.in_kernel {
        Ok(()) => "takes bpf, inside the kernel: nothing is stopped".to_owned(),
        Err(obstacle) => format!("bpf cannot be taken: {obstacle}"),
    };
    vec![
        ("record, top", in_kernel),
        ("  else", fit(can_stop, "takes pause: one thread stands still for a moment per sample")),
        ("  --nonblocking", fit(can_read, "takes peek: nothing is stopped, some samples cannot be proved")),
        ("  --kernel", kernel_frames(report)),
    ]
}

fn kernel_frames(report: &Report) -> String {
    match (&report.in_kernel, &report.kernel_names) {
        (Err(_), _) => "needs bpf; does not work here".to_owned(),
        (Ok(()), Ok(())) => "shows what threads do in the kernel, with the names of its functions".to_owned(),
        (Ok(()), Err(trouble)) => format!("shows [kernel] instead of names: {trouble}"),
    }
}

fn process_facts(process: &ProcessReport) -> Vec<Fact> {
    let unknown = || "may not be seen".to_owned();
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let user = process.user.as_ref().map_or_else(unknown, ToString::to_string);
    let mut facts = vec![
        ("command", process.command_line.clone()),
        ("executable", path(&process.executable).unwrap_or_else(unknown)),
        ("user", user),
        ("state", state(process.state).to_owned()),
        ("traced by", process.tracer.map_or("nobody".to_owned(), |tracer| format!("process {tracer}"))),
        ("namespaces", namespaces(process)),
        ("root folder", path(&process.root).unwrap_or_else(unknown)),
        ("kernel threads", grouped(process.kernel_threads as u64)),
    ];
    match &process.python {
        None => facts.push(("Python", "not found".to_owned())),
        Some(python) => facts.extend(python_facts(python)),
    }
    facts
}

fn state(letter: u8) -> &'static str {
    match letter {
        b'R' => "running",
        b'S' | b'I' => "sleeping",
        b'D' => "sleeping in the kernel",
        b'T' => "stopped by a signal",
        b't' => "stopped by its tracer",
        b'Z' | b'X' => "ended",
        _ => "unknown",
    }
}

fn namespaces(process: &ProcessReport) -> String {
    let shared = |shared: Option<bool>| match shared {
        Some(true) => "ours",
        Some(false) => "another",
        None => "may not be seen",
    };
    let inner = process.inner_pid.map_or(String::new(), |inner| format!(" (it is {inner} there)"));
    let shares = process.shares;
    format!("PID {}{inner}, mount {}, user {}", shared(shares.pid), shared(shares.mount), shared(shares.user))
}

fn python_facts(python: &PythonReport) -> Vec<Fact> {
    let mut facts = vec![("Python", format!("CPython {}", python.version))];
    match &python.examination {
        Err(error) => facts.push(("threads", format!("could not be walked: {error}"))),
        Ok(seen) => {
            if let Some(location) = &seen.location {
                facts.push(("build", build(seen, location)));
                facts.push(("found by", evidence(location).to_owned()));
            }
            facts.push(("interpreters", grouped(seen.interpreters.len() as u64)));
            facts.push(("Python threads", grouped(seen.threads.len() as u64)));
            facts.push(("GIL", gil(seen)));
            let others = seen.other_pythons.iter().enumerate();
            facts.extend(others.map(|(place, other)| ("another Python", another_python(other, place))));
        }
    }
    facts
}

/// The Python that has this place among those beside the first one.
fn another_python(other: &OtherPython, place: usize) -> String {
    let sampled = if is_sampled(place) { "which is sampled as well" } else { "which is not sampled" };
    format!("CPython {} in {}, {sampled}", other.version, other.path)
}

fn build(seen: &Examination, location: &Location) -> String {
    let place = if location.in_executable {
        "static, in the executable".to_owned()
    } else {
        format!("shared, in {}", location.path)
    };
    let symbols = match location.is_stripped {
        Some(true) => "stripped",
        Some(false) => "with symbols",
        None => "its file cannot be read",
    };
    let threading = if seen.free_threaded { "free-threaded; " } else { "" };
    format!("{threading}{place}; {symbols}")
}

fn evidence(location: &Location) -> String {
    match location.evidence {
        Evidence::Symbol(name) => format!("its symbol {name}"),
        Evidence::Section => "its section .PyRuntime".to_owned(),
        Evidence::Cookie => "the cookie that its description of itself begins with".to_owned(),
        Evidence::Search => "a search of its data for what leads to a live thread".to_owned(),
    }
}

fn gil(seen: &Examination) -> String {
    match seen.gils {
        Gils::None => return "none".to_owned(),
        Gils::NotFound => return "not found: this build says nowhere where it is".to_owned(),
        Gils::Known(_) => {}
    }
    let holders: Vec<String> = seen.threads.iter().filter(|thread| thread.holds_gil).map(holder).collect();
    let held = match holders.is_empty() {
        true => "free when it was looked at".to_owned(),
        false => format!("held by {} when it was looked at", holders.join(" and ")),
    };
    match seen.gils {
        Gils::Known(count) if count > 1 => format!("{}; {held}", counted(count as u64, "GIL")),
        _ => held,
    }
}

fn holder(thread: &ExaminedThread) -> String {
    let name = thread.name.as_ref().map_or(String::new(), |name| format!(" \"{name}\""));
    let interpreter = match thread.interpreter {
        main if main == InterpreterId::new(0) => String::new(),
        other => format!(" of interpreter {other}"),
    };
    format!("thread {}{name}{interpreter}", thread.tid)
}

fn write_verdict(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let what = match &report.process {
        Some(process) => format!("record --pid {}", process.pid),
        None => "record -- COMMAND".to_owned(),
    };
    if report.obstacles.is_empty() {
        writeln!(out, "profiler {what} works here.")?;
    } else {
        writeln!(out, "profiler {what} does not work:")?;
        report.obstacles.iter().try_for_each(|obstacle| write_failure(obstacle, out))?;
    }
    if !report.hints.is_empty() {
        writeln!(out, "What could be better:")?;
        report.hints.iter().try_for_each(|hint| write_failure(hint, out))?;
    }
    Ok(())
}

fn write_failure(failure: &Failure, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  {}", escaped_text(failure.what()))?;
    failure.advice().iter().try_for_each(|advice| writeln!(out, "    try: {}", escaped_text(advice)))
}
