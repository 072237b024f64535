//! Numbers and names in the width that there is for them.

use profiler_model::Nanos;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// The blocks of a sparkline, from nothing to all.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Writes text from a place on, at most to the end of `within`; returns the column after it.
pub fn put(buffer: &mut Buffer, within: Rect, x: u16, text: &str, style: Style) -> u16 {
    if within.height == 0 || x >= within.right() {
        return x;
    }
    buffer.set_stringn(x, within.y, text, usize::from(within.right() - x), style).0
}

/// `12.3`, `100`: a share in four columns.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 99.95 { format!("{percent:.0}") } else { format!("{percent:.1}") }
}

/// A time in at most seven columns: `350ms`, `12.34s`, `12m05s`, `3h04m`.
pub fn duration(time: Nanos) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds as u64;
    match seconds {
        0.0 => "0".to_owned(),
        _ if seconds < 0.001 => format!("{:.0}µs", seconds * 1e6),
        _ if seconds < 1.0 => format!("{:.0}ms", seconds * 1e3),
        _ if seconds < 100.0 => format!("{seconds:.2}s"),
        _ if seconds < 6_000.0 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3_600, whole / 60 % 60),
    }
}

/// `12.3 MB`
pub fn memory(bytes: u64) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.2} GB", bytes / 1e9),
        bytes if bytes >= 1e7 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{:.1} MB", bytes / 1e6),
    }
}

/// The last values as blocks, one column each, the largest that is possible being `most`.
pub fn sparkline(values: impl DoubleEndedIterator<Item = f64>, most: f64, width: usize) -> String {
    let block = |value: f64| {
        let part = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        BLOCKS[(part * 7.0).round() as usize]
    };
    let mut blocks: Vec<char> = values.rev().take(width).map(block).collect();
    blocks.reverse();
    format!("{:>width$}", blocks.into_iter().collect::<String>())
}

/// `name.py:12`, with the start of a long path left out: its end tells more.
pub fn tail(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width == 0 {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(length - (width - 1)).collect();
    format!("…{kept}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_width() {
        let nanos = Nanos::from_nanos;
        let cases = [
            (0, "0"),
            (999, "1µs"),
            (350_000_000, "350ms"),
            (12_340_000_000, "12.34s"),
            (725_000_000_000, "12m05s"),
            (11_040_000_000_000, "3h04m"),
        ];
        for (time, text) in cases {
            assert_eq!(duration(nanos(time)), text);
        }
        assert_eq!(
            (percent(0.1234), percent(1.0), percent(0.0)),
            ("12.3".into(), "100".into(), "0.0".into())
        );
        assert_eq!((memory(9_400_000), memory(123_000_000)), ("9.4 MB".into(), "123 MB".into()));
    }

    #[test]
    fn sparklines_end_with_the_last_value() {
        assert_eq!(sparkline([0.0, 0.5, 1.0].into_iter(), 1.0, 2), "▅█");
        assert_eq!(sparkline([1.0].into_iter(), 1.0, 3), "  █");
        assert_eq!(sparkline([1.0].into_iter(), 0.0, 1), "▁");
    }

    #[test]
    fn long_paths_keep_their_end() {
        assert_eq!(
            tail("package/module.py:12", 10),
            "…dule.py:12"[..].chars().take(11).collect::<String>().replacen("…d", "…", 1)
        );
        assert_eq!(tail("a.py", 10), "a.py");
    }
}
