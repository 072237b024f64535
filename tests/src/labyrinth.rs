//! Judges stacks of the fixture `labyrinth`: whether such a stack can exist.
//!
//! The names say it all: `n12_from_3_at_70` is room 12, called by room 3 only, on line 70 only, and room R
//! lies on lines 1 + 5 R to 5 + 5 R. So a frame is right when the frame above it in the call chain is its
//! caller, on that line. A torn stack mixes two moments and breaks the chain somewhere.

use std::fmt;

use crate::Frame;

/// Lines of the maze that belong to each room.
const LINES_PER_ROOM: u32 = 5;

/// Where a possible stack is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the maze, so many rooms deep.
    Maze {
        /// The number of rooms on the stack.
        depth: usize,
    },
    /// In the program around the maze, between two walks.
    Around,
    /// In a thread that only waits.
    Idle,
    /// Before the walk: imports, the building of the maze. Only seen by who starts the program.
    Before,
}

/// Why a stack cannot exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Torn {
    /// No frames at all.
    Empty,
    /// A stack that does not begin where threads begin.
    NoRoot {
        /// The frame it begins with.
        found: String,
    },
    /// A room called by somebody else than its caller, or from another line.
    WrongCaller {
        /// The calling frame as it was shown.
        caller: String,
        /// The room as it was shown.
        callee: String,
    },
    /// A room that is on a line of another one, or on none.
    WrongLine {
        /// The frame as it was shown.
        frame: String,
    },
    /// A function on top of a room that no room calls.
    Unregistered {
        /// The frame as it was shown.
        frame: String,
    },
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Torn::Empty => write!(f, "no frames"),
            Torn::NoRoot { found } => write!(f, "begins with {found}"),
            Torn::WrongCaller { caller, callee } => write!(f, "{callee} on {caller}"),
            Torn::WrongLine { frame } => write!(f, "{frame} is not on a line of its own"),
            Torn::Unregistered { frame } => write!(f, "{frame} on top of a room"),
        }
    }
}

impl std::error::Error for Torn {}

/// A room as its name describes it.
struct Room {
    number: u32,
    caller: Option<(u32, u32)>,
}

impl Room {
    /// Reads `nNUMBER_from_CALLER_at_LINE`; the first room's caller is `outside`.
    fn parse(name: &str) -> Option<Self> {
        let (number, rest) = name.strip_prefix('n')?.split_once("_from_")?;
        let (caller, line) = rest.split_once("_at_")?;
        let number = number.parse().ok()?;
        let caller = match caller {
            "outside" => None,
            caller => Some((caller.parse().ok()?, line.parse().ok()?)),
        };
        Some(Room { number, caller })
    }

    fn has_line(&self, line: u32) -> bool {
        line.checked_sub(1).is_some_and(|line| line / LINES_PER_ROOM == self.number)
    }
}

fn shown(frame: &Frame) -> String {
    format!("{}:{}", frame.function, frame.line.unwrap_or(0))
}

/// Judges one stack, root first. Marks such as `<gc>` may stand at its end.
pub fn judge(stack: &[Frame]) -> Result<Place, Torn> {
    let end = stack.iter().rposition(|frame| frame.line.is_some()).map_or(0, |last| last + 1);
    let stack = &stack[..end];
    let root = stack.first().ok_or(Torn::Empty)?;
    if !matches!(root.plain_name(), "<module>" | "_bootstrap" | "_find_and_load" | "main") {
        return Err(Torn::NoRoot { found: shown(root) });
    }
    match stack.iter().position(|frame| Room::parse(&frame.function).is_some()) {
        None => Ok(outside(stack)),
        Some(first) => {
            let (around, rooms) = stack.split_at(first);
            judge_rooms(around.last(), rooms)?;
            Ok(Place::Maze { depth: rooms.len() })
        }
    }
}

/// Where a stack without rooms is.
fn outside(stack: &[Frame]) -> Place {
    let on_stack = |name: &str| stack.iter().any(|frame| frame.plain_name() == name);
    if on_stack("idle") || on_stack("attend") {
        Place::Idle
    } else if stack.iter().any(is_walk) || on_stack("listen") || on_stack("drive_plain") {
        Place::Around
    } else {
        Place::Before
    }
}

/// Whether it is `Walk.run`, which before 3.11 has the same name as that of a thread, from another file.
fn is_walk(frame: &Frame) -> bool {
    let is_of_walk = || frame.file.as_deref().is_some_and(|file| file.ends_with("labyrinth.py"));
    frame.function == "Walk.run" || frame.function == "run" && is_of_walk()
}

/// Judges the rooms of a stack and the frame that they stand on.
fn judge_rooms(around: Option<&Frame>, rooms: &[Frame]) -> Result<(), Torn> {
    let mut below: Option<(Room, u32)> = None;
    for (index, frame) in rooms.iter().enumerate() {
        let Some(room) = Room::parse(&frame.function) else {
            return Err(Torn::Unregistered { frame: shown(frame) });
        };
        let line = frame.line.filter(|&line| room.has_line(line));
        let line = line.ok_or_else(|| Torn::WrongLine { frame: shown(frame) })?;
        let fits = match &below {
            None => {
                room.caller.is_none() && around.is_some_and(|frame| frame.plain_name().starts_with("drive_"))
            }
            Some((caller, caller_line)) => room.caller == Some((caller.number, *caller_line)),
        };
        if !fits {
            let caller = if index == 0 { around } else { rooms.get(index - 1) };
            return Err(Torn::WrongCaller {
                caller: caller.map_or_else(|| "nothing".to_owned(), shown),
                callee: shown(frame),
            });
        }
        below = Some((room, line));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(text: &str) -> Vec<Frame> {
        text.split(';').map(Frame::parse).collect()
    }

    const AROUND: &str = "<module> (l.py:9);main (l.py:8);Walk.run (l.py:7);drive_plain (l.py:5)";

    #[test]
    fn a_possible_stack() {
        let text = format!("{AROUND};n0_from_outside_at_0 (maze.py:4);n2_from_0_at_4 (maze.py:13);<gc>");
        let text = format!("{};n4_from_2_at_13 (maze.py:21)", text.trim_end_matches(";<gc>"));
        assert_eq!(judge(&stack(&text)), Ok(Place::Maze { depth: 3 }));
        assert_eq!(judge(&stack(&format!("{text};<gc>"))), Ok(Place::Maze { depth: 3 }));
        assert_eq!(judge(&stack(AROUND)), Ok(Place::Around));
    }

    #[test]
    fn without_qualified_names_the_walk_is_known_by_its_file() {
        let stack_of = |run: &str| stack(&format!("<module> (labyrinth.py:9);main (labyrinth.py:8);{run}"));
        assert_eq!(judge(&stack_of("run (labyrinth.py:7)")), Ok(Place::Around));
        assert_eq!(judge(&stack_of("run (threading.py:7)")), Ok(Place::Before));
    }

    #[test]
    fn torn_stacks_are_found() {
        let maze = |rest: &str| judge(&stack(&format!("{AROUND};n0_from_outside_at_0 (maze.py:4){rest}")));
        // Another line of the caller, another caller, a line of another room, a missing room, a room in the
        // middle of nowhere, a function that is none of the maze.
        assert!(matches!(maze(";n2_from_0_at_3 (maze.py:12)"), Err(Torn::WrongCaller { .. })));
        assert!(matches!(maze(";n2_from_1_at_4 (maze.py:12)"), Err(Torn::WrongCaller { .. })));
        assert!(matches!(maze(";n2_from_0_at_4 (maze.py:16)"), Err(Torn::WrongLine { .. })));
        assert!(matches!(maze(";n4_from_2_at_13 (maze.py:21)"), Err(Torn::WrongCaller { .. })));
        assert!(matches!(maze(";main (l.py:3)"), Err(Torn::Unregistered { .. })));
        let without_root = "n0_from_outside_at_0 (maze.py:4)";
        assert!(matches!(judge(&stack(without_root)), Err(Torn::NoRoot { .. })));
        let without_driver = "<module> (l.py:9);main (l.py:8);n0_from_outside_at_0 (maze.py:4)";
        assert!(matches!(judge(&stack(without_driver)), Err(Torn::WrongCaller { .. })));
        assert_eq!(judge(&[]), Err(Torn::Empty));
    }
}
