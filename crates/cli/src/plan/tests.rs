//! Command lines and what they mean.

use std::time::UNIX_EPOCH;

use clap::Parser;

use super::*;

/// 2026-11-21T06:02:01Z.
const NOW: u64 = 1_795_240_921;

fn planned(arguments: &str) -> Result<Plan, UsageError> {
    let words = std::iter::once("profiler").chain(arguments.split_whitespace());
    plan(Flags::try_parse_from(words).unwrap(), UNIX_EPOCH + Duration::from_secs(NOW))
}

fn record(arguments: &str) -> RecordPlan {
    match planned(&format!("record {arguments}")) {
        Ok(Plan::Record(plan)) => plan,
        Ok(_) => panic!("{arguments}: no recording"),
        Err(error) => panic!("{arguments}: {error}"),
    }
}

fn refused(arguments: &str) -> UsageError {
    planned(arguments).map(|_| arguments).unwrap_err()
}

#[test]
fn the_sampler_can_be_chosen() {
    let choices = [
        ("auto", None),
        ("pause", Some(SamplerKind::Pause)),
        ("bpf", Some(SamplerKind::Bpf)),
        ("peek", Some(SamplerKind::Peek)),
    ];
    for (name, choice) in choices {
        assert_eq!(record(&format!("-p 4711 --sampler {name}")).choice, choice, "{name}");
    }
}

#[test]
fn what_threads_do_in_the_kernel_is_seen_there_alone() {
    assert!(record("-p 1 --kernel").kernel_frames && record("-p 1 --kernel --sampler bpf").kernel_frames);
    assert!(record("-p 1 --kernel --mode off-cpu").kernel_frames && !record("-p 1").kernel_frames);
    for command in ["record", "top"] {
        for option in ["--sampler pause", "--sampler peek", "--nonblocking"] {
            let error = refused(&format!("{command} -p 1 --kernel {option}"));
            assert_eq!(error, UsageError::KernelFromOutside(option));
            assert!(error.to_string().contains("--sampler bpf"), "{error}");
        }
    }
}

#[test]
fn defaults_are_those_of_py_spy() {
    let plan = record("-p 4711");
    assert_eq!(plan.subject, Subject::Process(Pid::new(4711)));
    assert_eq!(plan.output, Output::New("4711-2026-11-21T06:02:01Z.svg".into()));
    assert_eq!((plan.format.name(), plan.duration), ("flamegraph", None));
    assert_eq!((plan.sampler.rate_hz, plan.choice), (100.0, None));
    assert_eq!(plan.sampler.policy, CapturePolicy::Running);
    assert_eq!(plan.filter, ViewFilter { idle: false, gil_only: false });
    assert_eq!(plan.view, ViewOptions { weight: Weight::Cpu, ..ViewOptions::default() });
}

#[test]
fn samples_weigh_what_the_view_is_of() {
    assert_eq!(record("-p 1 -i").view.weight, Weight::Wall);
    assert_eq!(record("-p 1 -g -f speedscope").view.weight, Weight::Wall);
    assert_eq!(record("-p 1 -f speedscope").view.weight, Weight::Cpu);
    assert_eq!(record("-p 1 -i -f raw").view.weight, Weight::Samples);
}

#[test]
fn every_option_reaches_its_place() {
    let plan = record("-p 0xFf -o x -f raw -d 2.5 -r 0.5 -t -g -i -s --full-filenames --nonblocking");
    assert!(plan.subprocesses && plan.view.processes);
    assert_eq!(plan.subject, Subject::Process(Pid::new(255)));
    assert_eq!((plan.output, plan.format.name()), (Output::File("x".into()), "raw"));
    assert_eq!(plan.duration, Some(Duration::from_millis(2500)));
    assert_eq!((plan.sampler.rate_hz, plan.choice), (0.5, Some(SamplerKind::Peek)));
    assert_eq!(plan.sampler.policy, CapturePolicy::RunningAndGilHolder);
    assert_eq!(plan.filter, ViewFilter { idle: true, gil_only: true });
    assert!(plan.view.threads && plan.view.full_filenames);
    for (options, lines) in [
        ("", Lines::Line),
        ("-F", Lines::FirstLine),
        ("--nolineno", Lines::None),
        ("-F --nolineno", Lines::None),
    ] {
        assert_eq!(record(&format!("-p 1 {options}")).view.line_numbers, lines, "{options}");
    }
}

#[test]
fn processes_are_merged_where_format_can() {
    for format in ["raw", "flamegraph", "speedscope"] {
        let plan = record(&format!("-p 1 -s --merge-processes -f {format}"));
        assert!(plan.view.processes && plan.view.merge_processes, "{format}");
    }
    assert!(!record("-p 1 -s").view.merge_processes);
    let error = refused("record -p 1 -s --merge-processes -f chrometrace");
    assert_eq!(error, UsageError::CannotMerge("chrometrace"));
    let words = ["profiler", "record", "-p", "1", "--merge-processes"];
    assert_eq!(Flags::try_parse_from(words).unwrap_err().exit_code(), 2);
}

#[test]
fn a_live_view_samples_every_thread_and_chooses_what_it_shows() {
    let top = |arguments: &str| match planned(&format!("top {arguments}")) {
        Ok(Plan::Top(plan)) => plan,
        _ => panic!("{arguments}: no live view"),
    };
    let plan = top("-p 4711 -r 50 --delay 2.5 -g");
    assert_eq!(plan.sampler.policy, CapturePolicy::All);
    assert!(!plan.settings.include_idle && plan.settings.gil_only && plan.settings.line_numbers);
    assert_eq!((plan.sampler.rate_hz, plan.settings.interval.as_nanos()), (50.0, 2_500_000_000));
    assert_eq!(plan.settings.file, "4711-2026-11-21T06:02:01Z.svg");
    assert!(!top("-i --nolineno -- python3 x.py").settings.line_numbers);
    for text in ["0", "0.01", "-1", "nan", "4000", "soon"] {
        assert_eq!(refused(&format!("top -p 1 --delay {text}")), UsageError::BadDelay(text.into()));
    }
}

#[test]
fn format_follows_the_name_then_the_ending() {
    let cases = [
        ("-o x.svg", "flamegraph"),
        ("-o x.txt", "raw"),
        ("-o x.raw", "raw"),
        ("-o x.collapsed", "raw"),
        ("-o x.folded", "raw"),
        ("-o x.json", "speedscope"),
        ("-o x.speedscope.json", "speedscope"),
        ("-o x.JSON", "speedscope"),
        ("-o x", "flamegraph"),
        ("-o x.other", "flamegraph"),
        ("-o x.svg -f raw", "raw"),
        ("-f speedscope", "speedscope"),
        ("-o -", "raw"),
        ("-o - -f flamegraph", "flamegraph"),
    ];
    for (options, format) in cases {
        assert_eq!(record(&format!("-p 1 {options}")).format.name(), format, "{options}");
    }
    assert_eq!(record("-p 1 -o -").output, Output::Stdout);
}

#[test]
fn files_without_a_name_are_called_after_what_is_profiled() {
    let cases = [
        ("-f raw -- /usr/bin/python3 x.py", "python3-2026-11-21T06:02:01Z.txt"),
        ("-f speedscope -p 7", "7-2026-11-21T06:02:01Z.json"),
    ];
    for (options, name) in cases {
        assert_eq!(record(options).output, Output::New(name.into()), "{options}");
    }
}

#[test]
fn command_line_without_meaning_is_refused() {
    assert_eq!(refused("record"), UsageError::NoSubject);
    assert_eq!(refused("record -p 1 -- ls"), UsageError::TwoSubjects);
    assert_eq!(refused("dump"), UsageError::NoPid);
    assert_eq!(refused("record -p 1 -r -3"), UsageError::BadRate("-3".into()));
    assert_eq!(refused("record -p 1 --max-cpu -3"), UsageError::BadMaxCpu("-3".into()));
}

#[test]
fn what_comes_later_is_refused_by_name() {
    let lines = ["record -p 1 --native", "dump -p 1 -n", "top --pid 1 --native"];
    for line in lines {
        assert!(matches!(refused(line), UsageError::NotYet(..)), "{line}");
    }
}
