//! The rules of the Trace Event format that its viewers draw by, checked on a whole file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The metadata that viewers know, with the type of what it tells; and our own.
const METADATA: [(&str, &str); 3] =
    [("process_name", "name"), ("process_labels", "labels"), ("thread_name", "name")];

/// What was drawn.
#[derive(Debug, Default)]
pub struct Drawn {
    /// By process and thread, how many slices it has.
    pub slices: BTreeMap<(u64, u64), usize>,
    /// The threads with a name.
    pub named_threads: BTreeSet<(u64, u64)>,
    /// The processes with a name.
    pub named_processes: BTreeSet<u64>,
}

/// A thread between two events.
#[derive(Default)]
struct Open {
    now: f64,
    /// The slices that have begun, outermost first.
    stack: Vec<String>,
}

/// Makes sure that every event is whole; that the slices of each thread nest, none ends before it began, and none is
/// left open; and that names are told once, before anything else.
pub fn check_trace_events(file: &Value) -> Result<Drawn> {
    let mut drawn = Drawn::default();
    let mut open: BTreeMap<(u64, u64), Open> = BTreeMap::new();
    for event in file.as_array().context("no array of events")? {
        let thread = (number(event, "pid")?, number(event, "tid")?);
        let name = event["name"].as_str().context("a name")?.to_owned();
        let Some(phase @ ("B" | "E")) = event["ph"].as_str() else {
            ensure!(open.is_empty(), "{event} comes after events that it should tell of");
            note_metadata(&mut drawn, event, thread, &name)?;
            continue;
        };
        let at = event["ts"].as_f64().filter(|at| at.is_finite() && *at >= 0.0).context("a time")?;
        let Open { now, stack } = open.entry(thread).or_default();
        ensure!(at >= *now, "{event} goes back in time");
        *now = at;
        if phase == "B" {
            ensure!(
                event["args"]["filename"].is_string() && event["args"]["line"].is_u64(),
                "{event}: no place"
            );
            stack.push(name);
        } else {
            let begun = stack.pop().with_context(|| format!("{event} ends nothing"))?;
            ensure!(begun == name, "{event} ends another slice than {begun}");
            *drawn.slices.entry(thread).or_default() += 1;
        }
    }
    for (thread, Open { stack, .. }) in open {
        ensure!(stack.is_empty(), "{stack:?} of {thread:?} never end");
    }
    Ok(drawn)
}

fn number(event: &Value, name: &str) -> Result<u64> {
    event[name].as_u64().with_context(|| format!("no {name} in {event}"))
}

fn note_metadata(drawn: &mut Drawn, event: &Value, thread: (u64, u64), name: &str) -> Result<()> {
    ensure!(event["ph"] == "M", "unknown to this check: {event}");
    if name == "ledger" {
        ensure!(event["args"]["attempts"].is_u64(), "{event}");
        return Ok(());
    }
    let Some((_, told)) = METADATA.iter().find(|(known, _)| *known == name) else {
        bail!("no viewer knows {event}");
    };
    ensure!(event["args"][told].is_string(), "{event} tells nothing");
    let is_new = match name {
        "process_name" => drawn.named_processes.insert(thread.0),
        "thread_name" => drawn.named_threads.insert(thread),
        _ => true,
    };
    ensure!(is_new, "{event} tells another name");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(phase: &str, name: &str, at: u64) -> Value {
        json!({ "ph": phase, "name": name, "pid": 1, "tid": 2, "ts": at, "args": { "filename": "a.py", "line": 1 } })
    }

    #[test]
    fn slices_nest_and_end() {
        let [begin, inner] = [event("B", "f", 1), event("B", "g", 2)];
        let good = json!([begin, inner, event("E", "g", 3), event("E", "f", 3)]);
        assert_eq!(check_trace_events(&good).unwrap().slices[&(1, 2)], 2);
        let bad = [
            json!({ "traceEvents": [] }),
            json!([begin]),
            json!([event("E", "f", 1)]),
            json!([begin, inner, event("E", "f", 3), event("E", "g", 3)]),
            json!([inner, event("E", "g", 1)]),
            json!([begin, event("X", "f", 2)]),
            json!([{ "ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {} }]),
            json!([{ "ph": "M", "name": "colour", "pid": 1, "tid": 0, "args": { "name": "x" } }]),
        ];
        for bad in bad {
            assert!(check_trace_events(&bad).is_err(), "{bad}");
        }
    }
}
