//! The call tree.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::Canvas;
use super::palette::DIM;
use super::table::{Drawn, cell, cost_cell, cost_columns, finish, lines, location, placed, titles};
use super::text::put;
use crate::state::{Column, State, TreeRow};

/// From this depth on, rows are no longer moved to the right: a deep stack would leave the screen.
const DEEPEST_INDENT: u32 = 24;

/// Draws the rows that are open.
pub fn draw(canvas: &mut Canvas, area: Rect, rows: &[TreeRow], first: usize) {
    let state = canvas.state;
    let mut columns = cost_columns(state, area.width, true);
    columns.retain(|(column, ..)| *column != Column::OwnCpu && *column != Column::OwnWall);
    columns.push((Column::Name, "call", 0));
    let columns = placed(area, &columns);
    titles(canvas, area, &columns);
    for (line, row, item) in lines(area, rows, first) {
        for column in &columns {
            match column.column {
                Column::Name => name(canvas, line, column, item),
                _ => {
                    let (text, style) =
                        cost_cell(state, column.column, |span| state.node_cost(item.node, span));
                    cell(canvas, line, column, &text, style);
                }
            }
        }
        finish(canvas, line, row);
    }
}

fn name(canvas: &mut Canvas, line: Rect, column: &Drawn, row: &TreeRow) {
    let state: &State = canvas.state;
    let place = state.function(state.function_of(row.node));
    let depth = state.depth_of(row.node);
    let mark = match (row.has_children, row.is_open) {
        (false, _) => ' ',
        (true, true) => '▾',
        (true, false) => '▸',
    };
    let indent = depth.min(DEEPEST_INDENT).min(u32::from(column.width) / 2) as usize;
    let is_indented = indent == depth as usize;
    let deep = if is_indented { String::new() } else { format!("{depth}:") };
    let x = put(
        canvas.buffer,
        line,
        column.x,
        &format!("{}{deep}{mark}{}", " ".repeat(indent), place.name),
        Style::new(),
    );
    put(canvas.buffer, line, x + 1, &location(state, place), DIM);
}
