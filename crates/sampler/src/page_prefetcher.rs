//! Which pages the next stack will probably lie in.
//!
//! A page that is fetched in vain costs a look-up in the kernel; one that turns out to be missing costs a system
//! call of its own, while a thread stands still. So a page is fetched ahead if it was read in a good part of the
//! recent instants. One that continues a run of pages costs next to nothing: it is fetched if it was read at all.

use std::iter::Peekable;

/// The score of a page that was read in every instant.
const CERTAIN: u32 = 1 << 16;

/// How fast what was is forgotten: each instant counts for one part in `2^FADING`.
const FADING: u32 = 3;

/// A page is fetched ahead above this score.
const WORTH_FETCHING: u32 = CERTAIN / 3;

/// A page is forgotten below this score.
const FORGOTTEN: u32 = CERTAIN / 256;

/// Learns which pages are read, and says which ones to fetch ahead.
#[derive(Debug, Default)]
pub struct PagePrefetcher {
    /// Page numbers in order, each with the part of the recent instants in which it was read.
    scores: Vec<(u64, u32)>,
    before: Vec<(u64, u32)>,
    predicted: Vec<u64>,
}

impl PagePrefetcher {
    /// The pages to fetch, in order.
    pub fn pages(&self) -> &[u64] {
        &self.predicted
    }

    /// Learns that these pages, given in order, and no others were read.
    pub fn learn(&mut self, read: impl Iterator<Item = u64>) {
        std::mem::swap(&mut self.scores, &mut self.before);
        self.scores.clear();
        let mut read = read.peekable();
        for (page, score) in &self.before {
            add_new(&mut self.scores, &mut read, *page);
            let faded = score - (score >> FADING);
            match read.next_if_eq(page) {
                Some(_) => self.scores.push((*page, faded + (CERTAIN >> FADING))),
                None if faded > FORGOTTEN => self.scores.push((*page, faded)),
                None => {}
            }
        }
        add_new(&mut self.scores, &mut read, u64::MAX);
        self.predict();
    }

    fn predict(&mut self) {
        self.predicted.clear();
        for (page, score) in &self.scores {
            let continues_run = self.predicted.last().is_some_and(|last| last + 1 == *page);
            if continues_run || *score > WORTH_FETCHING {
                self.predicted.push(*page);
            }
        }
    }
}

/// Adds the pages below `limit` that come next.
fn add_new(scores: &mut Vec<(u64, u32)>, read: &mut Peekable<impl Iterator<Item = u64>>, limit: u64) {
    while let Some(page) = read.next_if(|page| *page < limit) {
        scores.push((page, CERTAIN >> FADING));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page prefetcher that has learned `pages` so many times.
    fn learned(times: usize, pages: &[u64]) -> PagePrefetcher {
        let mut page_prefetcher = PagePrefetcher::default();
        (0..times).for_each(|_| page_prefetcher.learn(pages.iter().copied()));
        page_prefetcher
    }

    #[test]
    fn what_is_read_again_and_again_is_fetched_until_it_has_not_been_for_a_while() {
        let mut page_prefetcher = learned(10, &[3, 7]);
        assert_eq!(page_prefetcher.pages(), [3, 7]);
        page_prefetcher.learn([7].into_iter());
        assert_eq!(page_prefetcher.pages(), [3, 7]);
        (0..8).for_each(|_| page_prefetcher.learn([7].into_iter()));
        assert_eq!(page_prefetcher.pages(), [7]);
        assert!(page_prefetcher.scores.iter().all(|(_, score)| *score <= CERTAIN));
    }

    #[test]
    fn what_was_read_once_is_fetched_if_it_continues_a_run() {
        let mut page_prefetcher = learned(20, &[3, 7]);
        page_prefetcher.learn([3, 4, 5, 7, 9].into_iter());
        assert_eq!(page_prefetcher.pages(), [3, 4, 5, 7]);
    }

    #[test]
    fn what_is_read_once_in_a_thousand_is_forgotten() {
        let mut page_prefetcher = PagePrefetcher::default();
        for page in 0..10_000 {
            page_prefetcher.learn([page].into_iter());
        }
        assert!(page_prefetcher.scores.len() < 50 && page_prefetcher.pages().len() < 50);
    }
}
