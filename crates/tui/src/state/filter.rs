//! The text that functions must contain to be shown.

use profiler_profile::ThreadInfo;

use super::mode::MAX_TYPED;
use super::places::Place;

/// A text, and which functions contain it in their name or their file name. An empty text lets everything through.
#[derive(Clone, Debug, Default)]
pub(super) struct NameFilter {
    /// In lower case.
    text: String,
    /// By function, whether it contains the text. Functions that came later are missing until the next `update`.
    matches: Vec<bool>,
}

impl NameFilter {
    /// The text, in lower case.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.matches.clear();
    }

    /// Adds a character to the text, as long as there is room.
    pub fn type_char(&mut self, char: char) {
        if self.text.len() < MAX_TYPED {
            self.text.extend(char.to_lowercase());
            self.matches.clear();
        }
    }

    /// Removes the last character of the text.
    pub fn erase(&mut self) {
        self.text.pop();
        self.matches.clear();
    }

    /// Looks for the text in the functions that are new since the last update.
    pub fn update(&mut self, functions: &[Place]) {
        if self.text.is_empty() {
            return;
        }
        for place in &functions[self.matches.len()..] {
            let contains = |text: &str| text.to_lowercase().contains(&self.text);
            self.matches.push(contains(&place.name) || contains(&place.file));
        }
    }

    /// Whether a function is let through.
    pub fn is_match(&self, function: u32) -> bool {
        self.text.is_empty() || self.matches.get(function as usize).is_some_and(|matches| *matches)
    }

    /// Whether a thread is let through: by its name, its number or the function that it is in.
    pub fn is_thread_match(&self, thread: &ThreadInfo, function: Option<u32>) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let name = thread.name.as_deref().unwrap_or_default().to_lowercase();
        name.contains(&self.text)
            || thread.key.tid.to_string().contains(&self.text)
            || function.is_some_and(|function| self.is_match(function))
    }
}
