//! Collapsed stacks, flame graphs and speedscope files.

use std::collections::BTreeMap;

use insta::assert_snapshot;
use profiler_model::{Frame, FrameKind, Nanos, Timestamp};
use profiler_output::{
    ChromeTrace, Collapsed, FORMATS, FlameGraph, Format, Lines, OutputError, Speedscope, ViewOptions, Weight,
};
use profiler_profile::{Event, Profile};
use serde_json::Value;

use crate::profiles::{Scene, frame, scene, weights, written};
use crate::schema;

/// Every format shows the same in its own way, so that each option is seen in each.
fn options(change: impl FnOnce(&mut ViewOptions)) -> ViewOptions {
    let mut options = ViewOptions { title: "python3 app.py".to_owned(), ..ViewOptions::default() };
    change(&mut options);
    options
}

#[test]
fn collapsed_stacks_are_laid_out_as_py_spy_does() {
    assert_snapshot!(written(&Collapsed, &scene(), &options(|_| ())));
}

#[test]
fn threads_and_processes_stand_at_the_root() {
    let options = options(|options| {
        (options.threads, options.processes, options.full_filenames) = (true, true, true);
    });
    assert_snapshot!(written(&Collapsed, &scene(), &options));
}

/// A parent with three workers of one command line and one of another, each with a main thread and a thread `pool`.
fn workers() -> Profile {
    let mut scene = Scene::new();
    let parent = scene.process(1, None, "gunicorn app");
    let main = scene.thread(parent, 1, Some("MainThread"));
    scene.sample(1, main, &[frame("spawn", "app.py", 1, 2)], 10);
    for (index, line) in ["worker", "worker", "beat", "worker"].into_iter().enumerate() {
        let pid = 10 * (index as u32 + 1);
        let process = scene.process(pid, Some(parent), line);
        let main = scene.thread(process, pid, Some("MainThread"));
        let pool = scene.thread(process, pid + 1, Some("pool"));
        scene.sample(2, main, &[frame("serve", "app.py", 10, 11)], 10);
        scene.sample(3, pool, &[frame("serve", "app.py", 10, 11)], 10);
        scene.sample(index + 1, pool, &[frame("query", "db.py", 10, 11)], 5);
    }
    scene.profile
}

#[test]
fn merged_processes_of_one_command_line_are_one() {
    let merged = |options: &mut ViewOptions| (options.processes, options.merge_processes) = (true, true);
    let text = written(&Collapsed, &workers(), &options(merged));
    let app = "process:\"gunicorn app\"";
    assert_eq!(
        weights(&text).into_iter().collect::<BTreeMap<_, _>>(),
        BTreeMap::from([
            (&*format!("{app};process:\"beat\";query (db.py:11)"), 3),
            (&*format!("{app};process:\"beat\";serve (app.py:11)"), 5),
            (&*format!("{app};process:\"worker\";query (db.py:11)"), 1 + 2 + 4),
            (&*format!("{app};process:\"worker\";serve (app.py:11)"), 15),
            (&*format!("{app};spawn (app.py:2)"), 1),
        ])
    );
    let by_thread = options(|options| (merged(options), options.threads = true).1);
    let text = written(&Collapsed, &workers(), &by_thread);
    assert_eq!(weights(&text)[&*format!("{app};process:\"worker\";thread: pool;serve (app.py:11)")], 9);
    let svg = written(&FlameGraph, &workers(), &options(merged));
    assert!(
        boxes(&svg).iter().any(|label| label.starts_with("process:&quot;worker&quot; (22 samples")),
        "{svg}"
    );
}

#[test]
fn speedscope_sums_threads_of_merged_processes() {
    let merged = options(|options| {
        (options.processes, options.merge_processes, options.weight) = (true, true, Weight::Cpu);
    });
    let text = written(&Speedscope, &workers(), &merged);
    let file: Value = serde_json::from_str(&text).unwrap();
    schema::check(&file);
    assert_eq!(file["processes_merged"], true);
    let profiles: Vec<(&str, f64, usize)> = file["profiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|profile| {
            let (samples, weights) = (&profile["samples"], &profile["weights"]);
            let (samples, weights) = (samples.as_array().unwrap(), weights.as_array().unwrap());
            assert_eq!(samples.len(), weights.len());
            let sum: f64 = weights.iter().filter_map(Value::as_f64).sum();
            assert!((sum - profile["endValue"].as_f64().unwrap()).abs() < 1e-9);
            (profile["name"].as_str().unwrap(), (sum * 1e3).round(), samples.len())
        })
        .collect();
    assert_eq!(
        profiles,
        [
            ("Process \"gunicorn app\" Thread \"MainThread\"", 10.0, 1),
            ("Process \"worker\" Thread \"MainThread\"", 60.0, 1),
            ("Process \"worker\" Thread \"pool\"", 125.0, 2),
            ("Process \"beat\" Thread \"MainThread\"", 20.0, 1),
            ("Process \"beat\" Thread \"pool\"", 45.0, 2),
        ]
    );
    assert_eq!(file["activeProfileIndex"], 2);
}

#[test]
fn functions_are_one_frame_by_first_line_or_without_any() {
    let profile = scene();
    let by_first_line =
        written(&Collapsed, &profile, &options(|options| options.line_numbers = Lines::FirstLine));
    assert_eq!(weights(&by_first_line)["<module> (app.py:1);Job.run (job.py:10)"], 28);
    let without = written(&Collapsed, &profile, &options(|options| options.line_numbers = Lines::None));
    assert_eq!(weights(&without)["<module> (app.py);Job.run (job.py)"], 28);
}

#[test]
fn time_weighs_in_nanoseconds_and_what_took_none_is_not_shown() {
    let text = written(&Collapsed, &scene(), &options(|options| options.weight = Weight::Cpu));
    let weights = weights(&text);
    assert_eq!(weights["<module> (app.py:40);Job.run (job.py:12);dgemm (libblas.so.3)"], 40_000_000);
    assert!(weights.keys().all(|stack| !stack.contains("wait")), "{text}");
}

#[test]
fn every_line_of_any_name_is_a_stack_and_a_weight() {
    let mut scene = Scene::new();
    let process = scene.process(1, None, "a\r\n;b");
    let thread = scene.thread(process, 1, Some("\n"));
    for name in ["a;b", "", " ", "a\nb 3", "\u{85}", "\u{2028}", "\t", "# c", "d 4"] {
        let odd = Frame { function: name.into(), ..Frame::default() };
        scene.sample(1, thread, &[odd.clone(), frame("f", "f.py", 1, 2), odd], 10);
    }
    let options = options(|options| (options.threads, options.processes) = (true, true));
    let text = written(&Collapsed, &scene.profile, &options);
    let weights = weights(&text);
    assert_eq!(weights.values().sum::<u64>(), 9);
    for stack in weights.keys() {
        let frames: Vec<&str> = stack.split(';').collect();
        assert_eq!(frames.len(), 5, "{stack}");
        assert!(frames.iter().all(|frame| !frame.trim().is_empty()), "{stack}");
        assert!(!stack.chars().any(char::is_control), "{stack}");
    }
    assert_eq!(boxes(&written(&FlameGraph, &scene.profile, &options)).len(), 1 + 2 + 9 * 3);
}

#[test]
fn a_frame_is_one_box_whatever_its_siblings_are_called() {
    // Sorted as text, `a b` would fall between `a 5` and `a;c 5`.
    let mut scene = Scene::new();
    let process = scene.process(1, None, "");
    let thread = scene.thread(process, 1, None);
    let named = |name: &str| Frame { function: name.into(), ..Frame::default() };
    scene.sample(5, thread, &[named("a")], 10);
    scene.sample(5, thread, &[named("a b")], 10);
    scene.sample(5, thread, &[named("a"), named("c")], 10);
    let svg = written(&FlameGraph, &scene.profile, &options(|_| ()));
    let mut boxes = boxes(&svg);
    boxes.sort();
    assert_eq!(
        boxes,
        [
            "a (10 samples, 66.67%)",
            "a b (5 samples, 33.33%)",
            "all (15 samples, 100%)",
            "c (5 samples, 33.33%)"
        ]
    );
}

#[test]
fn the_flame_graph_is_drawn_with_its_counts_and_losses() {
    let options = options(|options| (options.threads, options.weight) = (true, Weight::Wall));
    let svg = written(&FlameGraph, &scene(), &options);
    // The script is inferno's own.
    let (before, rest) = svg.split_once("<script").expect("a script");
    let (_, after) = rest.split_once("</script>").expect("its end");
    assert_snapshot!(format!("{before}{after}").replace("><", ">\n<"));
}

#[test]
fn what_is_too_narrow_to_draw_changes_nothing_else() {
    let mut scene = Scene::new();
    let process = scene.process(1, None, "");
    let thread = scene.thread(process, 1, None);
    let caller = frame("caller", "a.py", 1, 1);
    for line in 0..5_000 {
        scene.sample(1, thread, &[caller.clone(), frame("narrow", "a.py", 1, line)], 10);
    }
    scene.sample(5_000, thread, &[caller, frame("wide", "a.py", 1, 1)], 10);
    let boxes = boxes(&written(&FlameGraph, &scene.profile, &options(|_| ())));
    assert_eq!(
        boxes,
        [
            "all (10,000 samples, 100%)",
            "caller (a.py:1) (10,000 samples, 100.00%)",
            "wide (a.py:1) (5,000 samples, 50.00%)"
        ]
    );
}

#[test]
fn an_empty_profile_is_drawn_as_what_it_is() {
    let mut profile = Profile::with_timeline();
    profile.add(&Event::loss(profiler_model::LossReason::NoRuntime, Timestamp::default(), 1));
    let svg = written(&FlameGraph, &profile, &options(|options| options.title = "a < b".to_owned()));
    assert!(svg.contains("No samples.") && svg.contains("a &lt; b"), "{svg}");
    assert!(svg.contains("lost 1 (100.00 %): 1 no Python runtime"), "{svg}");
    for format in FORMATS {
        assert!(!written(format, &profile, &options(|_| ())).is_empty());
    }
}

#[test]
fn speedscope_files_satisfy_the_schema_and_add_up() {
    let profile = scene();
    for weight in [Weight::Samples, Weight::Cpu, Weight::Wall] {
        for is_full in [false, true] {
            let options = options(|options| {
                options.weight = weight;
                (options.threads, options.processes) = (is_full, is_full);
            });
            let file: Value = serde_json::from_str(&written(&Speedscope, &profile, &options)).unwrap();
            schema::check(&file);
            check_sums(&file, expected_total(&profile, weight));
        }
    }
}

#[test]
fn speedscope_files_name_threads_as_py_spy_does() {
    let file = written(&Speedscope, &scene(), &options(|options| options.weight = Weight::Wall));
    let file: Value = serde_json::from_str(&file).unwrap();
    let names: Vec<&str> = file["profiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|profile| profile["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "Thread 12 \"MainThread\"",
            "Thread 13 \"wor;ker\u{1b}[2J 2\"",
            "Thread 15 \"\"",
            "Thread 14 \"MainThread\""
        ]
    );
    assert_eq!(file["ledger"]["lost"]["sampler late"], 2);
    assert_eq!(file["ledger"]["attempts"], 87 + 1 + 3);
}

#[test]
fn speedscope_frames_are_those_that_the_options_tell_apart() {
    let frames = |lines| {
        let file = written(&Speedscope, &scene(), &options(|options| options.line_numbers = lines));
        let file: Value = serde_json::from_str(&file).unwrap();
        file["shared"]["frames"].as_array().unwrap().clone()
    };
    let runs = |frames: &[Value]| frames.iter().filter(|frame| frame["name"] == "Job.run").count();
    assert_eq!(runs(&frames(Lines::Line)), 2);
    assert_eq!(runs(&frames(Lines::FirstLine)), 1);
    let without = frames(Lines::None);
    assert_eq!(runs(&without), 1);
    assert!(without.iter().all(|frame| frame["line"] == 0 && frame["col"] == 0));
}

#[test]
fn speedscope_refuses_a_profile_of_sums() {
    let refused = Speedscope.write(&Profile::new(), &ViewOptions::default(), &mut Vec::new());
    assert!(matches!(refused, Err(OutputError::NoTimeline)));
    assert!(Speedscope.needs_timeline() && !Collapsed.needs_timeline());
}

/// The texts of all boxes of an SVG.
fn boxes(svg: &str) -> Vec<String> {
    let titles = svg.split("<title>").skip(1);
    titles.map(|rest| rest.split("</title>").next().unwrap().replace('\u{a0}', " ")).collect()
}

fn expected_total(profile: &Profile, weight: Weight) -> f64 {
    let tallies = profile.tallies().iter();
    let seconds = |nanos: Nanos| nanos.as_secs_f64();
    match weight {
        Weight::Samples => profile.ledger().shown() as f64,
        Weight::Cpu => tallies.map(|tally| seconds(tally.weights.cpu)).sum(),
        Weight::Wall => tallies.map(|tally| seconds(tally.weights.wall)).sum(),
    }
}

/// Every sample names frames that exist, every profile ends where its weights end, and all of them together
/// are the profile, gaps aside.
fn check_sums(file: &Value, expected: f64) {
    let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
    let mut total = 0.0;
    for profile in file["profiles"].as_array().unwrap() {
        let samples = profile["samples"].as_array().unwrap();
        let weights: Vec<f64> =
            profile["weights"].as_array().unwrap().iter().map(|weight| weight.as_f64().unwrap()).collect();
        assert_eq!(samples.len(), weights.len());
        for frame in samples.iter().flat_map(|sample| sample.as_array().unwrap()) {
            assert!(frame.as_u64().unwrap() < frames);
        }
        let sum: f64 = weights.iter().sum();
        assert!((sum - profile["endValue"].as_f64().unwrap()).abs() < 1e-9);
        let shown = samples.iter().zip(&weights).filter(|(sample, _)| sample != &&Value::Array(Vec::new()));
        total += shown.map(|(_, weight)| weight).sum::<f64>();
    }
    assert!((total - expected).abs() < 1e-6, "{total} instead of {expected}");
}

#[test]
fn functions_of_the_kernel_are_marked_in_every_format() {
    let mut scene = Scene::new();
    let process = scene.process(1, None, "");
    let thread = scene.thread(process, 1, None);
    let of_kernel = |function: &str, module: Option<&str>| Frame {
        kind: FrameKind::Kernel,
        function: function.into(),
        module: module.map(Into::into),
        ..Frame::default()
    };
    let read = frame("read", "app.py", 1, 2);
    let stack = [read.clone(), of_kernel("vfs_read", None), of_kernel("ext4_read", Some("ext4"))];
    scene.sample(3, thread, &stack, 10);
    scene.sample(1, thread, &[read], 10);
    let text = |format: &dyn Format| written(format, &scene.profile, &options(|_| ()));
    let collapsed = text(&Collapsed);
    assert_eq!(weights(&collapsed)["read (app.py:2);vfs_read_[k];ext4_read (ext4)_[k]"], 3);
    for lines in [Lines::FirstLine, Lines::None] {
        let text = written(&Collapsed, &scene.profile, &options(|options| options.line_numbers = lines));
        assert!(text.contains(";vfs_read_[k];ext4_read (ext4)_[k] 3"), "{text}");
    }
    let speedscope: Value = serde_json::from_str(&text(&Speedscope)).unwrap();
    let frames = speedscope["shared"]["frames"].as_array().unwrap();
    let named: Vec<_> = frames.iter().map(|frame| (&frame["name"], &frame["file"])).collect();
    assert!(named.contains(&(&"vfs_read_[k]".into(), &"".into())), "{named:?}");
    assert!(named.contains(&(&"ext4_read_[k]".into(), &"ext4".into())), "{named:?}");
    assert!(text(&ChromeTrace).contains(r#""name":"vfs_read_[k]""#));
    // Drawn without the mark, as everywhere, but in a colour of their own.
    let colours = |svg: &str| svg.matches(r#"fill="rgb(140,190,220)""#).count();
    let svg = text(&FlameGraph);
    assert!(svg.contains("vfs_read (3 samples") && svg.contains("ext4_read (ext4) (3 samples"), "{svg}");
    assert_eq!(colours(&svg), 2);
}
