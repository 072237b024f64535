//! What somebody asks who sees the project for the first time, and where the answer stands.

use super::page::Page;

/// A question and the place of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The question.
    pub asked: &'static str,
    /// The page with the answer.
    pub page: &'static str,
    /// The heading above the answer.
    pub heading: &'static str,
    /// What the answer mentions.
    pub mentions: &'static str,
}

/// The questions that must stay answered.
pub const QUESTIONS: &[Question] = &[
    Question {
        asked: "How is a container profiled?",
        page: "docs/guide/containers.md",
        heading: "Profile a container from the host",
        mentions: "docker inspect",
    },
    Question {
        asked: "Does kernel 5.15 work, and what is missing there?",
        page: "docs/reference/kernels.md",
        heading: "By version",
        mentions: "**Example: 5.15.**",
    },
    Question {
        asked: "What does \"thread ran while it was read\" mean, and what helps?",
        page: "docs/reference/losses.md",
        heading: "Loss reasons",
        mentions: "| thread ran while it was read |",
    },
    Question {
        asked: "Which file is opened to add an output format?",
        page: "CONTRIBUTING.md",
        heading: "Add an output format",
        mentions: "`crates/output/src/format.rs`",
    },
    Question {
        asked: "Where stands the rule that decides a sample's weight?",
        page: "docs/architecture.md",
        heading: "The rule that decides a sample's weight",
        mentions: "`crates/account/src/thread_account.rs`",
    },
    Question {
        asked: "Why is real-time priority asked for?",
        page: "docs/guide/permissions.md",
        heading: "Real-time priority",
        mentions: "keeps that thread stopped",
    },
];

/// The questions without their answer.
pub fn unanswered(pages: &[Page], questions: &[Question]) -> Vec<String> {
    let is_answered = |question: &Question| {
        let page = pages.iter().find(|page| page.path == question.page);
        let section = page.and_then(|page| page.section(question.heading));
        section.is_some_and(|section| section.contains(question.mentions))
    };
    let missing = questions.iter().filter(|question| !is_answered(question));
    missing
        .map(|Question { asked, page, heading, mentions }| {
            format!("{page}: no answer below \"{heading}\" that mentions {mentions}: {asked}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_page_heading_or_answer_is_reported() {
        let question = Question { asked: "Why?", page: "a.md", heading: "Reason", mentions: "because" };
        let is_unanswered =
            |path: &str, text: &str| !unanswered(&[Page::new(path, text)], &[question]).is_empty();
        assert!(!is_unanswered("a.md", "# A\n## Reason\nbecause\n"));
        assert!(is_unanswered("b.md", "# A\n## Reason\nbecause\n"));
        assert!(is_unanswered("a.md", "# A\n## Other\nbecause\n"));
        assert!(is_unanswered("a.md", "# A\n## Reason\n## Other\nbecause\n"));
    }
}
