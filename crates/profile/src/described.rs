//! A profile whose frames are described anew: native frames get their names when these are known, which is after they were captured.

use profiler_model::Frame;

use crate::Profile;
use crate::mapping::Mapping;

impl Profile {
    /// The same profile with each frame replaced by the frames that `describe` gives for it, root first: a native frame becomes its
    /// function with what the compiler inlined into it. A frame for which it gives none stays as it is. Stacks that become equal
    /// become one.
    pub fn described(&self, describe: &mut dyn FnMut(&Frame) -> Vec<Frame>) -> Profile {
        let mut described = match self.keeps_timeline() {
            true => Profile::with_timeline(),
            false => Profile::new(),
        };
        let mapping = Mapping::described(described.dictionary_mut(), self.dictionary(), describe);
        described.merge_by(self, mapping);
        described
    }
}

#[cfg(test)]
mod tests {
    use profiler_model::{Nanos, Pid, ThreadKey, ThreadState, Tid, Timestamp};

    use super::*;
    use crate::{ProcessInfo, Sample, ThreadInfo};

    fn frame(function: &str) -> Frame {
        Frame { function: function.into(), ..Frame::default() }
    }

    fn profile(stacks: &[&[&str]]) -> Profile {
        let mut profile = Profile::with_timeline();
        let process = profile.process(ProcessInfo::default());
        let key = ThreadKey { pid: Pid::new(1), tid: Tid::new(1) };
        let thread = profile.thread(ThreadInfo { key, process, pthread_id: None, name: None, is_main: true });
        for (index, stack) in stacks.iter().enumerate() {
            let frames: Vec<_> = stack.iter().map(|function| profile.frame(&frame(function))).collect();
            let stack = profile.stack(frames);
            let (cpu, wall) = (Nanos::from_nanos(10), Nanos::from_nanos(20));
            let at = Timestamp::from_nanos(index as u64);
            let state = ThreadState::Running;
            profile.record(Sample { at, thread, stack, state, holds_gil: false, cpu, wall });
        }
        profile
    }

    fn sums(profile: &Profile) -> Vec<(Vec<String>, u64, u64)> {
        let names = |tally: &crate::Tally| {
            let name = |frame| profile.frame_of(frame).function.to_string();
            profile.root_first(tally.stack).into_iter().map(name).collect()
        };
        let tallies = profile.tallies().iter();
        tallies.map(|tally| (names(tally), tally.weights.samples, tally.weights.cpu.as_nanos())).collect()
    }

    #[test]
    fn frame_becomes_its_function_with_inlined_ones() {
        let profile = profile(&[&["main", "0x10", "leaf"], &["main", "0x10"]]);
        let mut describe = |frame_: &Frame| match &*frame_.function {
            "0x10" => vec![frame("outer"), frame("inlined")],
            _ => Vec::new(),
        };
        let described = sums(&profile.described(&mut describe));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            described,
            [
                (names(&["main", "outer", "inlined", "leaf"]), 1, 10),
                (names(&["main", "outer", "inlined"]), 1, 10)
            ]
        );
    }

    #[test]
    fn stacks_that_become_equal_are_summed() {
        let profile = profile(&[&["0x10"], &["0x14"], &["0x10"]]);
        let described = profile.described(&mut |_| vec![frame("loop")]);
        assert_eq!(sums(&described), [(vec!["loop".to_owned()], 3, 30)]);
        let thread = described.threads().next().map(|(thread, _)| thread).expect("the thread");
        let times: Vec<u64> =
            described.timeline(thread).expect("a timeline").map(|run| run.start().as_nanos()).collect();
        assert_eq!(times.first(), Some(&0));
        assert_eq!(described.ledger(), profile.ledger());
    }
}
