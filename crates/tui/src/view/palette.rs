//! The colours: the sixteen that every terminal has and its user has chosen, so that light and dark
//! backgrounds both do.

use ratatui::style::{Color, Modifier, Style};

/// What stands out.
pub const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// What stands back.
pub const DIM: Style = Style::new().add_modifier(Modifier::DIM);
/// The row of the cursor, the present tab.
pub const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
/// What is hot.
pub const HOT: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// What is warm.
pub const WARM: Style = Style::new().fg(Color::Yellow);
/// Figures and curves.
pub const CURVE: Style = Style::new().fg(Color::Cyan);
/// What has been switched on, and matches.
pub const ON: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);

/// How a share is coloured.
pub fn heat(share: f64) -> Style {
    match share {
        share if share >= 0.2 => HOT,
        share if share >= 0.05 => WARM,
        _ => Style::new(),
    }
}

/// The colour of a box of the flame view: neighbours should differ, a function should keep its own.
pub fn flame(function: u32, is_match: bool) -> Style {
    const WARM_ONES: [Color; 4] = [Color::Yellow, Color::LightRed, Color::Red, Color::LightYellow];
    let color = if is_match { Color::LightMagenta } else { WARM_ONES[function as usize % WARM_ONES.len()] };
    Style::new().fg(Color::Black).bg(color)
}
