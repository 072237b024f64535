//! The functions and lines that were seen, numbered from 0, and which of them each frame belongs to.

use std::sync::Arc;

use profiler_model::{Frame, FrameKind, plain};
use rustc_hash::FxHashMap;

/// What makes two frames the same function: where it is written, not its name alone.
type FunctionKey = (FrameKind, Arc<str>, Arc<str>, Option<u32>, Option<Arc<str>>, Option<u64>);

/// A function or a line of one, named so that it can be shown: nothing in it commands a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function's name.
    pub name: Arc<str>,
    /// The file, or where there is none the library.
    pub file: Arc<str>,
    /// Of a line, its number; of a function, the line on which it starts.
    pub line: Option<u32>,
    /// Whether it is a function of the kernel: part of the calls, but not of the lists, which say what the program costs.
    pub is_kernel: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub functions: Vec<Place>,
    pub lines: Vec<Place>,
    /// By line: its function.
    line_functions: Vec<u32>,
    /// By frame: its function and its line.
    of_frame: Vec<(u32, u32)>,
    function_index: FxHashMap<FunctionKey, u32>,
    line_index: FxHashMap<(u32, Option<u32>), u32>,
    full_filenames: bool,
}

impl Places {
    pub fn new(full_filenames: bool) -> Self {
        Places { full_filenames, ..Places::default() }
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: &Frame) {
        let function = self.function(frame);
        let line = self.line(function, frame.position.line);
        self.of_frame.push((function, line));
    }

    /// The function and the line of a frame.
    pub fn of(&self, frame: usize) -> (u32, u32) {
        self.of_frame[frame]
    }

    /// Whether a frame is one of the kernel's.
    pub fn is_kernel(&self, frame: usize) -> bool {
        self.functions[self.of_frame[frame].0 as usize].is_kernel
    }

    /// The function of each line.
    pub fn line_functions(&self) -> &[u32] {
        &self.line_functions
    }

    fn function(&mut self, frame: &Frame) -> u32 {
        let is_nameless = frame.function.is_empty() && frame.file.is_empty();
        let address = frame.address.filter(|_| is_nameless);
        let key = (
            frame.kind,
            frame.function.clone(),
            frame.file.clone(),
            frame.first_line,
            frame.module.clone(),
            address.map(profiler_model::RemoteAddr::as_u64),
        );
        let functions = &mut self.functions;
        *self.function_index.entry(key).or_insert_with(|| {
            let is_kernel = frame.kind == FrameKind::Kernel;
            let name = match address {
                Some(address) => address.to_string(),
                None if frame.function.is_empty() => "<unnamed>".to_owned(),
                // As files have it.
                None if is_kernel => format!("{}_[k]", plain(&frame.function)),
                None => plain(&frame.function).into_owned(),
            };
            let file = plain(file_shown(frame, self.full_filenames)).into();
            functions.push(Place { name: name.into(), file, line: frame.first_line, is_kernel });
            functions.len() as u32 - 1
        })
    }

    fn line(&mut self, function: u32, line: Option<u32>) -> u32 {
        let (lines, functions, of) = (&mut self.lines, &self.functions, &mut self.line_functions);
        *self.line_index.entry((function, line)).or_insert_with(|| {
            of.push(function);
            lines.push(Place { line, ..functions[function as usize].clone() });
            lines.len() as u32 - 1
        })
    }
}

/// The file that stands beside the name: code without a source file has its library.
fn file_shown(frame: &Frame, full: bool) -> &str {
    let module = frame.module.as_deref().unwrap_or_default();
    let files = if full { [&*frame.file, module] } else { [&*frame.short_file, &*frame.file] };
    files.into_iter().chain([module]).find(|file| !file.is_empty()).unwrap_or_default()
}
