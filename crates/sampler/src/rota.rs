//! Which threads are looked at when: at each instant those that run or ran a moment ago, and of those that rest as many
//! as there is time for, in turn.
//!
//! To ask for the state of a thread takes the kernel microseconds, and of thousands of threads most sleep all the time. A
//! thread rests after it was seen asleep often enough in a row. As long as few rest, all of them are looked at at each
//! instant. Of many, each is looked at at a lower rate: its next sample stands for the time since the last one, and its
//! counters say whether it slept at the instants in between.

use std::collections::VecDeque;

/// A thread rests when it was seen asleep at so many looks in a row.
pub const LOOKS_BEFORE_REST: u16 = 32;

/// Up to so many threads that rest are looked at together with the others, ahead of other work.
const FEW: usize = 64;

/// Looks at threads that rest, in a second.
const LOOKS_A_SECOND: f64 = 8_000.0;

/// What a look costs that asks the kernel: so many that only look at shared memory.
pub const COST_OF_ASKING: u32 = 16;

/// What a look costs that finds in shared memory that the thread sleeps on.
pub const COST_OF_WATCHING: u32 = 1;

/// What a look at a thread found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookResult {
    /// Whether the thread rests.
    pub rests: bool,
    /// What the look cost, see [`COST_OF_ASKING`].
    pub cost: u32,
}

/// The order in which threads are looked at, by their indices in the thread table.
#[derive(Debug, Default)]
pub struct Rota {
    /// The number of the instant.
    instant: u64,
    active: Vec<usize>,
    /// The one that was looked at the longest ago comes first.
    resting: VecDeque<usize>,
    looked: Vec<usize>,
}

/// What a look may cost all threads that rest, at one of `rate_hz` instants in a second.
pub fn cost_of_instant(rate_hz: f64) -> u32 {
    (LOOKS_A_SECOND * f64::from(COST_OF_ASKING) / rate_hz).clamp(f64::from(COST_OF_ASKING), 1e6) as u32
}

/// Whether looks that cost so much take longer than a fifth of a millisecond: too long for real-time priority.
pub fn is_long(cost: u32) -> bool {
    cost > 100 * COST_OF_ASKING
}

impl Rota {
    /// The number of the current instant, from 1; 0 before the first.
    pub fn instant(&self) -> u64 {
        self.instant
    }

    /// Begins the next instant.
    pub fn begin(&mut self) {
        self.instant += 1;
        self.looked.clear();
    }

    /// Begins another round of the same instant.
    pub fn begin_round(&mut self) {
        self.looked.clear();
    }

    /// The threads that were looked at in this round, in ascending order.
    pub fn looked(&mut self) -> &[usize] {
        self.looked.sort_unstable();
        &self.looked
    }

    /// The threads that do not rest.
    pub fn active(&self) -> &[usize] {
        &self.active
    }

    /// Whether the threads that rest are too many to be looked at at each instant: they are looked at in turn.
    pub fn has_many_resting(&self) -> bool {
        self.resting.len() > FEW
    }

    /// Takes other indices: for each thread when it was looked at last if it rests, and whether it was looked at in this
    /// round.
    pub fn renumber(&mut self, threads: impl Iterator<Item = (Option<u64>, bool)>) {
        self.active.clear();
        self.looked.clear();
        let mut resting = Vec::new();
        for (index, (rests_since, was_looked_at)) in threads.enumerate() {
            match rests_since {
                Some(looked_at) => resting.push((looked_at, index)),
                None => self.active.push(index),
            }
            if was_looked_at {
                self.looked.push(index);
            }
        }
        resting.sort_unstable();
        self.resting = resting.into_iter().map(|(_, index)| index).collect();
    }

    /// Looks at the threads that do not rest.
    pub fn look_at_active(&mut self, look: &mut dyn FnMut(usize) -> LookResult) {
        let (looked, resting) = (&mut self.looked, &mut self.resting);
        self.active.retain(|index| {
            looked.push(*index);
            let seen = look(*index);
            if seen.rests {
                resting.push_back(*index);
            }
            !seen.rests
        });
    }

    /// Looks at threads that rest, each once at most, until that has cost so much.
    pub fn look_at_resting(&mut self, most: u32, look: &mut dyn FnMut(usize) -> LookResult) {
        let mut cost = 0;
        for _ in 0..self.resting.len() {
            if cost >= most {
                return;
            }
            let Some(index) = self.resting.pop_front() else { return };
            cost += self.look_at_one(index, look);
        }
    }

    /// Looks at a thread that rests, out of its turn.
    pub fn look_out_of_turn(&mut self, index: usize, look: &mut dyn FnMut(usize) -> LookResult) {
        self.resting.retain(|resting| *resting != index);
        self.look_at_one(index, look);
    }

    fn look_at_one(&mut self, index: usize, look: &mut dyn FnMut(usize) -> LookResult) -> u32 {
        self.looked.push(index);
        let seen = look(index);
        match seen.rests {
            true => self.resting.push_back(index),
            false => self.active.push(index),
        }
        seen.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: LookResult = LookResult { rests: true, cost: COST_OF_ASKING };
    const AWAKE: LookResult = LookResult { rests: false, cost: COST_OF_ASKING };

    fn rota_of(resting: usize) -> Rota {
        let mut rota = Rota::default();
        rota.renumber((0..resting).map(|_| (Some(0), false)));
        rota.begin();
        rota
    }

    #[test]
    fn few_resting_threads_are_looked_at_at_each_instant() {
        let mut rota = rota_of(FEW);
        assert!(!rota.has_many_resting());
        for _ in 0..3 {
            rota.begin();
            rota.look_at_resting(cost_of_instant(100.0), &mut |_| ASKED);
            assert_eq!(rota.looked().len(), FEW);
        }
    }

    #[test]
    fn many_resting_threads_take_turns_within_the_cost() {
        let mut rota = rota_of(5_000);
        let most = cost_of_instant(100.0);
        let mut looks = vec![0; 5_000];
        for _ in 0..125 {
            rota.begin();
            rota.look_at_resting(most, &mut |index| {
                looks[index] += 1;
                ASKED
            });
            assert_eq!(rota.looked().len(), 80);
        }
        assert!(looks.iter().all(|looks| *looks == 2), "10,000 looks, evenly");
    }

    #[test]
    fn looks_cost_the_same_per_second_at_every_rate() {
        let looks = |rate: f64| f64::from(cost_of_instant(rate) / COST_OF_ASKING) * rate;
        assert_eq!([looks(10.0), looks(100.0), looks(1_000.0)], [LOOKS_A_SECOND; 3]);
    }

    #[test]
    fn woken_thread_is_looked_at_at_each_instant_until_it_rests() {
        let mut rota = rota_of(1_000);
        rota.look_out_of_turn(999, &mut |_| AWAKE);
        for _ in 0..3 {
            rota.begin();
            rota.look_at_active(&mut |_| AWAKE);
            assert_eq!(rota.looked(), [999]);
        }
        rota.look_at_active(&mut |_| ASKED);
        assert!(rota.active().is_empty());
        rota.begin();
        rota.look_at_resting(16 * 999, &mut |_| ASKED);
        assert_eq!(rota.looked(), (0..999).collect::<Vec<_>>(), "it is the last in turn");
    }

    #[test]
    fn new_indices_keep_the_order_of_turns() {
        let mut rota = rota_of(0);
        rota.renumber([(Some(7), false), (None, true), (Some(3), true), (Some(5), false)].into_iter());
        assert_eq!((rota.active(), rota.looked.as_slice()), ([1].as_slice(), [1, 2].as_slice()));
        let mut order = Vec::new();
        rota.look_at_resting(1_000, &mut |index| {
            order.push(index);
            ASKED
        });
        assert_eq!(order, [2, 3, 0]);
    }
}
