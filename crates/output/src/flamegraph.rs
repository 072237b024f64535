//! The flame graph: an SVG picture with its roots at the top, drawn by inferno, as py-spy draws it.
//!
//! What is narrower than a thousandth is not drawn, and not even handed to inferno, which keeps every line
//! that it is given: with tens of thousands of deep stacks that would be most of the profiler's memory.

use std::borrow::Cow;
use std::convert::Infallible;
use std::io::Write;

use inferno::flamegraph::color::{Color, PaletteMap};
use inferno::flamegraph::{Direction, Options, from_lines};
use profiler_model::FrameKind;
use profiler_profile::Profile;

use crate::label::frame_label;
use crate::tree::Tree;
use crate::{Format, OutputError, ViewOptions, Weight, escape, summary};

/// The smallest part of the whole that is drawn, in percent: py-spy's.
const LEAST_PERCENT: f64 = 0.1;

/// From this total on, milliseconds are fine enough.
const MANY_NANOS: u64 = 10_000_000_000;

/// The SVG flame graph.
#[derive(Clone, Copy, Debug)]
pub struct FlameGraph;

impl Format for FlameGraph {
    fn name(&self) -> &'static str {
        "flamegraph"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["svg"]
    }

    fn write_view(
        &self,
        profile: &Profile,
        options: &ViewOptions,
        out: &mut dyn Write,
    ) -> Result<(), OutputError> {
        draw(profile, options, false, out)
    }
}

/// Draws the picture. Tests leave the script away, which is inferno's own and long.
fn draw(
    profile: &Profile,
    options: &ViewOptions,
    no_script: bool,
    out: &mut dyn Write,
) -> Result<(), OutputError> {
    let tree = Tree::new(profile, options);
    let subtitle = summary(profile.ledger());
    let title = escape::plain(&options.title);
    if tree.total() == 0 {
        return write_empty(&title, &subtitle, out);
    }
    let mut drawing = drawing_options(tree.total(), options.weight);
    drawing.title = title.into_owned();
    drawing.subtitle = Some(subtitle);
    drawing.no_javascript = no_script;
    let mut of_kernel = kernel_colors(profile, options);
    // Without any, names keep their colours as they always were.
    drawing.palette_map = of_kernel.as_mut();
    Ok(from_lines(&mut drawing, lines(tree).iter().rev().map(String::as_str), out)?)
}

fn drawing_options(total: u64, weight: Weight) -> Options<'static> {
    let mut drawing = Options::default();
    drawing.direction = Direction::Inverted;
    drawing.min_width = LEAST_PERCENT;
    drawing.deterministic = true;
    // Takes the lines as they come, last first. Otherwise inferno sorts them as text, and tears a frame in
    // two wherever the label of a sibling sorts between it and its children.
    drawing.flame_chart = true;
    (drawing.count_name, drawing.factor) = match weight {
        Weight::Samples => ("samples".to_owned(), 1.0),
        _ if total < MANY_NANOS => ("µs".to_owned(), 1e-3),
        _ => ("ms".to_owned(), 1e-6),
    };
    drawing
}

/// The colour of the kernel's functions, which the drawing shows without their mark. All others are red to yellow.
const KERNEL_COLOR: Color = Color { r: 140, g: 190, b: 220 };

/// The labels of the kernel's functions with their colour, if there are any.
fn kernel_colors(profile: &Profile, options: &ViewOptions) -> Option<PaletteMap> {
    let of_kernel = profile.frames().filter(|(_, frame)| frame.kind == FrameKind::Kernel);
    let mut colors = PaletteMap::default();
    for (_, frame) in of_kernel {
        colors.insert(escape::frame(&frame_label(frame, options)), KERNEL_COLOR);
    }
    (colors != PaletteMap::default()).then_some(colors)
}

/// The stacks that are wide enough to be seen, as collapsed lines.
fn lines(tree: Tree) -> Vec<String> {
    let least = (tree.total() as f64 * LEAST_PERCENT / 100.0).ceil() as u64;
    let mut lines = Vec::new();
    let Ok(()) = tree.visit(least, |stack, weight| -> Result<(), Infallible> {
        lines.push(format!("{} {weight}", disarmed(stack)));
        Ok(())
    });
    lines
}

/// The stack without what inferno would take for something else: `worker 2` at its end for an older count,
/// `# ` at its start for a comment.
fn disarmed(stack: &str) -> Cow<'_, str> {
    const NO_BREAK_SPACE: &str = "\u{a0}";
    let mut stack = Cow::Borrowed(stack);
    if let Some((start, last)) = stack.rsplit_once(' ')
        && last.chars().all(|char| char.is_ascii_digit() || char == '.')
    {
        stack = Cow::Owned(format!("{start}{NO_BREAK_SPACE}{last}"));
    }
    if let Some(rest) = stack.strip_prefix("# ") {
        stack = Cow::Owned(format!("#{NO_BREAK_SPACE}{rest}"));
    }
    stack
}

/// A picture that says that there is nothing to see, and why.
fn write_empty(title: &str, subtitle: &str, out: &mut dyn Write) -> Result<(), OutputError> {
    writeln!(out, r#"<?xml version="1.0" standalone="no"?>"#)?;
    writeln!(out, r#"<svg version="1.1" width="1200" height="80" xmlns="http://www.w3.org/2000/svg">"#)?;
    for (y, text) in [(24, title), (44, "No samples."), (64, subtitle)] {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        writeln!(out, r#"<text x="10" y="{y}" font-family="monospace" font-size="12">{text}</text>"#)?;
    }
    Ok(writeln!(out, "</svg>")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mistaken_for_an_older_count_or_a_comment() {
        assert_eq!(disarmed("main;worker 2"), "main;worker\u{a0}2");
        assert_eq!(disarmed("main;operator 1.5"), "main;operator\u{a0}1.5");
        assert_eq!(disarmed("# main;f (a.py:3)"), "#\u{a0}main;f (a.py:3)");
        assert_eq!(disarmed("main 2;f (a.py:3)"), "main 2;f (a.py:3)");
    }
}
