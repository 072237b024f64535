//! Compiles the unwind information of an ELF image to rows and rules.
//!
//! `.eh_frame` comes first, as programs run with it; `.debug_frame` fills its gaps; and functions that neither has are
//! followed by their instructions.

use std::ops::Range;

use gimli::{CfaRule, RegisterRule as CfiRule, UnwindExpression, UnwindSection};
use object::read::ReadRef;
use rustc_hash::FxHashMap;

use super::cfi::{Bytes, EntrySink, Row, read_debug_frame, read_eh_frame};
use super::expression::{CfaPlace, cfa, saved_at};
use super::rule::{RETURN_ADDRESS, RegisterKind, RegisterRule, UnwindRule};
use super::table::{TableCounts, UnwindRow, UnwindTable};
use super::x86_64::{Extent, GENERAL, RIP, RSP, SAVED_REGISTERS, follow, signal_rule};
use crate::modules::ElfImage;

/// The most rows of a table: 64 MiB. The largest real libraries have some millions.
const MAX_ROWS: usize = 1 << 23;

/// The most rules of a table; real ones have some thousands.
const MAX_RULES: usize = 1 << 18;

/// The most functions that are followed by their instructions, and the most bytes of one and of all.
const MAX_FOLLOWED: usize = 65_536;
const MAX_FUNCTION_BYTES: u64 = 1 << 20;
const MAX_FOLLOWED_BYTES: u64 = 64 << 20;

/// Compiles the unwind information of a module.
///
/// `debug` is the separate debug file of the same build, if there is one. `functions` are the addresses of functions by the
/// symbol table, in the file's terms; of one whose size is not known the end is its start. Parts of functions, which
/// compilers name `f.cold`, are not to be among them.
pub fn compile<'a, R: ReadRef<'a>>(
    image: &ElfImage<'a, R>,
    debug: Option<&ElfImage<'a, R>>,
    functions: impl IntoIterator<Item = Range<u64>>,
) -> UnwindTable {
    let mut compiler = Compiler::new(image);
    read_eh_frame(image, &mut compiler);
    for image in [Some(image), debug].into_iter().flatten() {
        compiler.begin_section();
        read_debug_frame(image, &mut compiler);
    }
    compiler.begin_section();
    compiler.follow_functions(image, functions);
    compiler.finish(image.entry())
}

/// The rows of a function.
#[derive(Clone, Debug)]
struct Function {
    start: u64,
    end: u64,
    rows: Range<usize>,
}

#[derive(Debug, Default)]
struct Compiler {
    base: u64,
    /// The executable segments.
    code: Vec<Range<u64>>,
    functions: Vec<Function>,
    /// How many of the functions come from the sections before this one. They are sorted.
    earlier: usize,
    rows: Vec<UnwindRow>,
    rules: Vec<UnwindRule>,
    numbers: FxHashMap<UnwindRule, u32>,
    last_rule: Option<(UnwindRule, u32)>,
    counts: TableCounts,
}

impl Compiler {
    fn new<'a, R: ReadRef<'a>>(image: &ElfImage<'a, R>) -> Self {
        let code = image.segments().iter().filter(|segment| segment.executable);
        Compiler {
            base: image.base(),
            code: code.map(|segment| segment.addresses()).collect(),
            ..Compiler::default()
        }
    }

    fn begin_section(&mut self) {
        self.functions.sort_by_key(|function| function.start);
        self.earlier = self.functions.len();
    }

    /// Whether an earlier section has something in this range.
    fn is_known(&self, start: u64, end: u64) -> bool {
        let earlier = &self.functions[..self.earlier];
        let before = earlier.partition_point(|function| function.start < end);
        // Functions that overlap each other are rare; the last ones tell.
        earlier[..before].iter().rev().take(2).any(|function| function.end > start)
    }

    fn begin_function(&mut self, start: u64, end: u64) -> bool {
        let is_inside = |code: &Range<u64>| code.start <= start && end <= code.end;
        let is_placed = start < end
            && end - self.base.min(start) < u64::from(u32::MAX)
            && self.code.iter().any(is_inside)
            && !self.is_known(start, end);
        if !is_placed {
            self.counts.misplaced += 1;
        } else if self.rows.len() >= MAX_ROWS {
            self.counts.over_limit += 1;
        } else {
            self.functions.push(Function { start, end, rows: self.rows.len()..self.rows.len() });
            return true;
        }
        false
    }

    fn add_row(&mut self, start: u64, rule: Option<&UnwindRule>) {
        let Some(function) = self.functions.last() else { return };
        let rows = function.rows.start..self.rows.len();
        if !(function.start..function.end).contains(&start) {
            return;
        }
        if self.rows.len() >= MAX_ROWS {
            self.counts.over_limit += 1;
            return;
        }
        let row = UnwindRow { start: (start - self.base) as u32, rule: self.number(rule) };
        match self.rows[rows].last_mut() {
            Some(last) if last.start == row.start => *last = row,
            Some(last) if last.rule == row.rule => {}
            _ => self.rows.push(row),
        }
    }

    fn end_function(&mut self) {
        if let Some(function) = self.functions.last_mut() {
            function.rows.end = self.rows.len();
        }
    }

    fn number(&mut self, rule: Option<&UnwindRule>) -> u32 {
        let Some(rule) = rule else { return UnwindRow::NO_RULE };
        if let Some((_, number)) = self.last_rule.filter(|(last, _)| last == rule) {
            return number;
        }
        let number = match self.numbers.get(rule) {
            Some(number) => *number,
            None if self.rules.len() >= MAX_RULES => {
                self.counts.over_limit += 1;
                return UnwindRow::NO_RULE;
            }
            None => {
                let number = self.rules.len() as u32;
                self.rules.push(*rule);
                self.numbers.insert(*rule, number);
                number
            }
        };
        self.last_rule = Some((*rule, number));
        number
    }

    fn follow_functions<'a, R: ReadRef<'a>>(
        &mut self,
        image: &ElfImage<'a, R>,
        functions: impl IntoIterator<Item = Range<u64>>,
    ) {
        let mut bytes = 0;
        for range in self.unlisted(functions).into_iter().take(MAX_FOLLOWED) {
            let length = range.end - range.start;
            if length > MAX_FUNCTION_BYTES || bytes + length > MAX_FOLLOWED_BYTES {
                self.counts.over_limit += 1;
                continue;
            }
            bytes += length;
            let code = image.bytes_from(range.start).and_then(|code| code.get(..length as usize));
            let Some(rows) = code.and_then(|code| follow(code, Extent::Whole)) else {
                self.counts.refused += 1;
                continue;
            };
            if self.begin_function(range.start, range.end) {
                self.counts.followed += 1;
                for (at, rule) in rows {
                    self.add_row(range.start + at as u64, rule.as_ref());
                }
                self.end_function();
            }
        }
    }

    /// The functions that have no rows yet, by their address and with their ends.
    fn unlisted(&self, functions: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
        let mut functions: Vec<Range<u64>> = functions.into_iter().collect();
        // Of several at one address the one whose size is known.
        functions.sort_by_key(|function| (function.start, std::cmp::Reverse(function.end)));
        functions.dedup_by_key(|function| function.start);
        let starts: Vec<u64> = functions.iter().map(|function| function.start).collect();
        functions.retain_mut(|function| {
            if function.end <= function.start {
                let next = starts.partition_point(|start| *start <= function.start);
                let code = self.code.iter().find(|code| code.contains(&function.start));
                let listed = self.functions[..self.earlier].partition_point(|f| f.start <= function.start);
                let listed = self.functions[..self.earlier].get(listed).map(|listed| listed.start);
                let ends = [starts.get(next).copied(), code.map(|code| code.end), listed];
                function.end = ends.into_iter().flatten().min().unwrap_or(function.start);
            }
            function.start < function.end && !self.is_known(function.start, function.end)
        });
        functions
    }

    /// Puts the rows of all functions in order, with gaps between.
    fn finish(mut self, entry: u64) -> UnwindTable {
        self.functions.sort_by_key(|function| function.start);
        let mut rows: Vec<UnwindRow> = Vec::with_capacity(self.rows.len() + self.functions.len() / 8);
        let mut end = None;
        for function in &self.functions {
            if end.is_some_and(|end| function.start < end) {
                self.counts.misplaced += 1;
                continue;
            }
            let of_function = &self.rows[function.rows.clone()];
            let first = of_function.first().map_or(function.end, |row| self.base + u64::from(row.start));
            if let Some(end) = end.filter(|end| *end < first) {
                push(&mut rows, UnwindRow { start: (end - self.base) as u32, rule: UnwindRow::NO_RULE });
            }
            of_function.iter().for_each(|row| push(&mut rows, *row));
            end = Some(if of_function.is_empty() { end.unwrap_or(function.start) } else { function.end });
        }
        if let Some(end) = end {
            push(&mut rows, UnwindRow { start: (end - self.base) as u32, rule: UnwindRow::NO_RULE });
        }
        rows.shrink_to_fit();
        self.rules.shrink_to_fit();
        UnwindTable { base: self.base, rows, rules: self.rules, entry, counts: self.counts }
    }
}

fn push(rows: &mut Vec<UnwindRow>, row: UnwindRow) {
    if rows.last().is_none_or(|last| last.rule != row.rule) {
        rows.push(row);
    }
}

impl EntrySink for Compiler {
    fn begin(&mut self, start: u64, end: u64) -> bool {
        let is_wanted = self.begin_function(start, end);
        self.counts.entries += u64::from(is_wanted);
        is_wanted
    }

    fn row<'a, S: UnwindSection<Bytes<'a>>>(&mut self, section: &S, row: &Row, is_signal_frame: bool) {
        let rule = if is_signal_frame {
            signal_rule(&places(section, row))
        } else {
            rule(section, row, &mut self.counts)
        };
        self.counts.unsupported_rows += u64::from(rule.is_none());
        self.add_row(row.start_address(), rule.as_ref());
    }

    fn end(&mut self) {
        self.end_function();
    }

    fn malformed(&mut self) {
        self.counts.malformed += 1;
    }

    fn over_limit(&mut self) {
        self.counts.over_limit += 1;
    }
}

/// Where the row of a signal frame finds all registers.
fn places<'a, S: UnwindSection<Bytes<'a>>>(section: &S, row: &Row) -> [Option<RegisterRule>; GENERAL + 1] {
    let mut places = [None; GENERAL + 1];
    for (register, rule) in row.registers() {
        if let (Some(place), CfiRule::Expression(expression)) =
            (places.get_mut(usize::from(register.0)), rule)
        {
            *place = expression.get(section).ok().and_then(saved_at);
        }
    }
    places
}

/// The rule of a row; `None` if its CFA or return address is of no known shape.
fn rule<'a, S: UnwindSection<Bytes<'a>>>(
    section: &S,
    row: &Row,
    counts: &mut TableCounts,
) -> Option<UnwindRule> {
    let mut rule = UnwindRule::plain(RSP, 0);
    rule.registers[RETURN_ADDRESS] = RegisterRule::UNKNOWN;
    for (register, from) in row.registers() {
        let register = u8::try_from(register.0).unwrap_or(u8::MAX);
        if register == RIP {
            if *from == CfiRule::Undefined {
                let mut outermost = UnwindRule::plain(RSP, 0);
                outermost.flags = UnwindRule::OUTERMOST;
                return Some(outermost);
            }
            rule.registers[RETURN_ADDRESS] = place(section, from)?;
        } else if let Some(place_of) = SAVED_REGISTERS.iter().position(|saved| *saved == register) {
            rule.registers[place_of] = place(section, from).unwrap_or_else(|| {
                counts.unsupported_registers += 1;
                RegisterRule::UNKNOWN
            });
        } else if register == RSP && !matches!(from, CfiRule::ValOffset(0) | CfiRule::SameValue) {
            return None;
        }
    }
    let place = cfa_place(section, row.cfa())?;
    (rule.cfa, rule.cfa_register, rule.cfa_operand) = (place.kind, place.register, place.operand);
    (rule.cfa_offset, rule.cfa_addend) = (place.offset, place.addend);
    (rule.registers[RETURN_ADDRESS].kind != RegisterKind::Unknown).then_some(rule)
}

fn cfa_place<'a, S: UnwindSection<Bytes<'a>>>(section: &S, rule: &CfaRule<usize>) -> Option<CfaPlace> {
    match rule {
        CfaRule::RegisterAndOffset { register, offset } => {
            let register = u8::try_from(register.0).ok().filter(|register| *register < RIP)?;
            Some(CfaPlace::at_register(register, i32::try_from(*offset).ok()?))
        }
        CfaRule::Expression(expression) => cfa(expression.get(section).ok()?),
    }
}

/// Where a row finds a register; `None` if that is of no known shape.
fn place<'a, S: UnwindSection<Bytes<'a>>>(section: &S, rule: &CfiRule<usize>) -> Option<RegisterRule> {
    let at = |expression: &UnwindExpression<usize>| saved_at(expression.get(section).ok()?);
    match rule {
        CfiRule::Undefined => Some(RegisterRule::UNKNOWN),
        CfiRule::SameValue => Some(RegisterRule::SAME),
        CfiRule::Offset(offset) => Some(RegisterRule::at_cfa(i32::try_from(*offset).ok()?)),
        CfiRule::ValOffset(offset) => {
            Some(RegisterRule::new(RegisterKind::CfaPlus, 0, i32::try_from(*offset).ok()?))
        }
        CfiRule::Register(register) => {
            let register = u8::try_from(register.0).ok().filter(|register| *register < RIP)?;
            Some(RegisterRule::new(RegisterKind::InRegister, register, 0))
        }
        CfiRule::Expression(expression) => at(expression),
        _ => None,
    }
}
