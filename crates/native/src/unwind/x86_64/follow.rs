//! Follows the instructions of a function that has no unwind information, from its start: where the stack pointer and its
//! copies stand above the return address, and where preserved registers were stored. So each instruction gets a rule.
//!
//! Nothing is assumed but the calling convention. Where paths meet that disagree, where a path comes from an indirect jump, and
//! where all copies of the stack pointer are lost, there is no rule. A whole function is taken only if each of its returns, and
//! each jump out of it, has the stack pointer at the return address and all preserved registers restored: what was followed
//! wrongly would hardly come out even.

use rustc_hash::FxHashMap;

use super::decode::{Effect, decode};
use super::registers::{GENERAL, RBP, RBX, RCX, RSP, SAVED_REGISTERS};
use crate::unwind::rule::{RegisterRule, UnwindRule};

/// How often the code is gone through until what its loops do is known.
const MAX_PASSES: usize = 8;

/// The registers that a CFA is taken from, the best first.
const CFA_REGISTERS: [u8; 14] = [RSP, RBP, RBX, 12, 13, 14, 15, 10, 11, 8, 9, 0, 1, 4];

/// The stack pointer at a function's start, and the place of the return address: relative to the CFA.
const AT_START: i32 = -8;

/// From this instruction on up to the next row, this rule holds.
pub(in crate::unwind) type FollowedRow = (usize, Option<UnwindRule>);

/// What code is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::unwind) enum Extent {
    /// A function from its start to its end.
    Whole,
    /// A function from its start to an instruction inside.
    UpTo,
}

/// The rules of the instructions of `code`, which a function starts with, and at last of the instruction behind it. `None` if
/// the function does not come out even or has bytes that are no instructions.
pub(in crate::unwind) fn follow(code: &[u8], extent: Extent) -> Option<Vec<FollowedRow>> {
    let mut follower = Follower { code, extent, targets: FxHashMap::default(), again: false };
    for _ in 0..MAX_PASSES {
        follower.again = false;
        let rows = follower.pass()?;
        if !follower.again {
            return Some(rows);
        }
    }
    None
}

/// Where the caller's value of a preserved register is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Saved {
    InRegister,
    /// At the CFA and this.
    At(i32),
    Lost,
}

/// What is known before an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    /// The registers that hold the CFA and a number.
    registers: [Option<i32>; GENERAL],
    saved: [Saved; SAVED_REGISTERS.len()],
}

impl State {
    const START: State = {
        let mut registers = [None; GENERAL];
        registers[RSP as usize] = Some(AT_START);
        State { registers, saved: [Saved::InRegister; SAVED_REGISTERS.len()] }
    };

    /// Whether the function could return here.
    fn is_even(&self) -> bool {
        self.get(RSP) == Some(AT_START) && self.saved == State::START.saved
    }

    fn get(&self, register: u8) -> Option<i32> {
        self.registers[usize::from(register)]
    }

    fn saved(&mut self, register: u8) -> Option<&mut Saved> {
        let place = SAVED_REGISTERS.iter().position(|saved| *saved == register)?;
        self.saved.get_mut(place)
    }

    fn set(&mut self, register: u8, value: Option<i32>) {
        // Changed by some instructions whose operands do not name it.
        self.registers[usize::from(register)] = value.filter(|_| register != RCX);
        if let Some(saved) = self.saved(register).filter(|saved| **saved == Saved::InRegister) {
            *saved = Saved::Lost;
        }
    }

    /// The place `base + displacement`, relative to the CFA.
    fn place(&self, base: u8, displacement: i32) -> Option<i32> {
        self.get(base)?.checked_add(displacement)
    }

    fn store(&mut self, register: u8, place: Option<i32>) {
        if let (Some(place), Some(saved)) = (place, self.saved(register))
            && *saved == Saved::InRegister
        {
            *saved = Saved::At(place);
        }
    }

    fn load(&mut self, register: u8, place: Option<i32>) {
        self.set(register, None);
        if let (Some(place), Some(saved)) = (place, self.saved(register))
            && *saved == Saved::At(place)
        {
            *saved = Saved::InRegister;
        }
    }

    fn push(&mut self, register: Option<u8>) {
        let place = self.place(RSP, -8);
        self.set(RSP, place);
        if let Some(register) = register {
            self.store(register, place);
        }
    }

    fn pop(&mut self, register: Option<u8>) {
        let place = self.get(RSP);
        self.set(RSP, self.place(RSP, 8));
        if let Some(register) = register {
            self.load(register, place);
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Push(register) => self.push(register),
            Effect::Pop(register) => self.pop(register),
            Effect::Add(register, number) => self.set(register, self.place(register, number)),
            Effect::Copy(to, from, number) => self.set(to, self.place(from, number)),
            Effect::Store(from, base, displacement) => self.store(from, self.place(base, displacement)),
            Effect::Load(to, base, displacement) => self.load(to, self.place(base, displacement)),
            Effect::Leave => {
                self.set(RSP, self.get(RBP));
                self.pop(Some(RBP));
            }
            Effect::Call => {
                let is_preserved = |register: u8| register == RSP || SAVED_REGISTERS.contains(&register);
                (0..GENERAL as u8).filter(|register| !is_preserved(*register)).for_each(|register| {
                    self.set(register, None);
                });
            }
            Effect::Changes(registers) => {
                let mut left = registers;
                while left != 0 {
                    self.set(left.trailing_zeros() as u8, None);
                    left &= left - 1;
                }
            }
            Effect::Return(_) | Effect::Jump(_) | Effect::Branch(_) | Effect::Stop => {}
        }
    }

    /// What is known on both of two paths.
    fn met(mut self, other: &State) -> State {
        for (one, other) in self.registers.iter_mut().zip(other.registers) {
            *one = one.filter(|_| *one == other);
        }
        for (one, other) in self.saved.iter_mut().zip(other.saved) {
            *one = if *one == other { *one } else { Saved::Lost };
        }
        self
    }

    fn rule(&self) -> Option<UnwindRule> {
        let known = |register: &u8| Some((*register, self.get(*register)?));
        let (register, above) = CFA_REGISTERS.iter().find_map(known)?;
        let mut rule = UnwindRule::plain(register, above.checked_neg()?);
        rule.flags = UnwindRule::FROM_CODE;
        for (place, saved) in rule.registers.iter_mut().zip(self.saved) {
            *place = match saved {
                Saved::InRegister => RegisterRule::SAME,
                Saved::At(place) => RegisterRule::at_cfa(place),
                Saved::Lost => RegisterRule::UNKNOWN,
            };
        }
        Some(rule)
    }
}

struct Follower<'a> {
    code: &'a [u8],
    extent: Extent,
    /// What is known before instructions that are jumped to.
    targets: FxHashMap<usize, State>,
    /// Whether something has become known of code that was gone through before.
    again: bool,
}

impl Follower<'_> {
    fn pass(&mut self) -> Option<Vec<FollowedRow>> {
        let mut rows: Vec<FollowedRow> = Vec::new();
        let (mut at, mut state, mut is_same) = (0, Some(State::START), false);
        loop {
            if let Some(target) = self.targets.get_mut(&at) {
                // What is known by the instruction above and by jumps.
                state = Some(state.map_or(*target, |state| target.met(&state)));
                *target = state.unwrap_or(*target);
                is_same = false;
            }
            if !is_same {
                let rule = state.as_ref().and_then(State::rule);
                if rows.last().is_none_or(|last| last.1 != rule) {
                    rows.push((at, rule));
                }
            }
            if at >= self.code.len() {
                // The last instruction may go beyond the end only if nothing leads to it.
                return (at == self.code.len() || state.is_none()).then_some(rows);
            }
            let Some(decoded) = decode(&self.code[at..]) else {
                // Data between instructions ends what can be followed.
                let is_data = state.is_none() && self.targets.keys().all(|target| *target <= at);
                return is_data.then_some(rows);
            };
            at += decoded.length;
            is_same = state.is_none() || decoded.effect == Effect::Changes(0);
            if let (Some(before), false) = (state, is_same) {
                state = self.after(before, decoded.effect, at)?;
            }
        }
    }

    /// What is known behind an instruction, for the one below it: the inner `None` if the code does not go on there. The
    /// outer `None` refuses the function.
    fn after(&mut self, mut state: State, effect: Effect, end: usize) -> Option<Option<State>> {
        state.apply(effect);
        match effect {
            Effect::Return(_) => {
                let is_right = self.extent == Extent::UpTo || state.is_even();
                return is_right.then_some(None);
            }
            Effect::Jump(Some(distance)) => return self.jump(&state, distance, end).map(|()| None),
            Effect::Jump(None) | Effect::Stop => return Some(None),
            Effect::Branch(distance) => self.jump(&state, distance, end)?,
            _ => {}
        }
        Some(Some(state))
    }

    fn jump(&mut self, state: &State, distance: i32, end: usize) -> Option<()> {
        let inside = end.checked_add_signed(distance as isize).filter(|target| *target <= self.code.len());
        let Some(target) = inside else {
            // A call of another function in place of a return, else another part of this one.
            let is_right = self.extent == Extent::UpTo || state.is_even();
            return is_right.then_some(());
        };
        let known = self.targets.get(&target).copied();
        let met = known.map_or(*state, |known| known.met(state));
        if known != Some(met) {
            self.targets.insert(target, met);
            self.again |= target < end;
        }
        Some(())
    }
}
