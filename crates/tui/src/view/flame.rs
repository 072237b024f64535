//! The flame view: callers above callees, each as wide as its share. The zoomed node takes the whole width.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::Canvas;
use super::palette::{BOLD, DIM, flame};
use super::table::location;
use super::text::{duration, percent, put};
use crate::state::{Action, State, time};

/// A box that is to be drawn.
struct Box {
    node: u32,
    x: f64,
    width: f64,
    row: u16,
}

/// Draws the boxes, and in the first line what the cursor's box stands for.
pub fn draw(canvas: &mut Canvas, area: Rect) {
    let rows = area.height.saturating_sub(1);
    describe(canvas, Rect { height: 1.min(area.height), ..area });
    let mut boxes: Vec<Box> = match canvas.state.zoom() {
        Some(node) => vec![Box { node, x: 0.0, width: f64::from(area.width), row: 0 }],
        None => side_by_side(canvas.state, None, 0.0, f64::from(area.width), 0),
    };
    while let Some(one) = boxes.pop() {
        if one.row >= rows || !draw_box(canvas, area, &one) {
            continue;
        }
        boxes.extend(side_by_side(canvas.state, Some(one.node), one.x, one.width, one.row + 1));
    }
}

/// The callees of a node in the width of its box.
fn side_by_side(state: &State, node: Option<u32>, x: f64, width: f64, row: u16) -> Vec<Box> {
    let total =
        |node: u32| time(state.measure(), state.node_cost(node, state.span()).total).as_nanos() as f64;
    let children = state.children(node);
    let whole = match node {
        Some(node) => total(node),
        None => children.iter().map(|child| total(*child)).sum(),
    };
    if whole <= 0.0 {
        return Vec::new();
    }
    let mut left = x;
    children
        .into_iter()
        .map(|child| {
            let one = Box { node: child, x: left, width: width * total(child) / whole, row };
            left += one.width;
            one
        })
        .collect()
}

/// Draws a box; returns whether there was room for any of it.
fn draw_box(canvas: &mut Canvas, area: Rect, one: &Box) -> bool {
    let (from, to) = (one.x.round() as u16, (one.x + one.width).round() as u16);
    if from >= to {
        return false;
    }
    let state = canvas.state;
    let place = Rect { x: area.x + from, y: area.y + 1 + one.row, width: to - from, height: 1 };
    let function = state.function_of(one.node);
    let is_match = !state.filter().is_empty() && state.is_match(function);
    let mut style = flame(function, is_match);
    if state.flame_cursor() == Some(one.node) {
        style = style.add_modifier(Modifier::REVERSED | Modifier::BOLD);
    }
    canvas.buffer.set_style(place, style);
    // The first column of each box stays free, so that boxes of one colour can be told apart.
    let start = if place.width > 1 { "▏" } else { "" };
    put(canvas.buffer, place, place.x, start, style);
    if place.width > 2 {
        put(canvas.buffer, place, place.x + 1, &state.function(function).name, style);
    }
    canvas.clickable.push((place, Action::PointFlame(one.node)));
    true
}

fn describe(canvas: &mut Canvas, line: Rect) {
    let state = canvas.state;
    let Some(node) = state.flame_cursor().or(state.zoom()) else {
        let text = match state.children(None).is_empty() {
            true => "no samples yet",
            false => "arrows or the mouse choose a box, Enter zooms, Esc goes back",
        };
        put(canvas.buffer, line, line.x, text, DIM);
        return;
    };
    let cost = state.node_cost(node, state.span());
    let figures = format!(
        "{}% {}, own {}% ",
        percent(state.share(cost.total, state.span())),
        duration(time(state.measure(), cost.total)),
        percent(state.share(cost.own, state.span())),
    );
    let x = put(canvas.buffer, line, line.x, &figures, BOLD);
    let place = state.function(state.function_of(node));
    let x = put(canvas.buffer, line, x, &place.name, Style::new());
    put(canvas.buffer, line, x + 1, &location(state, place), DIM);
}
