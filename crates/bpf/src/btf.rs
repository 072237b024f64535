//! Type information (BTF): where structures have their members. The kernel describes its own types so, and the compiler
//! those of our program.

/// Structures without a name lie in each other so deep at most: the kernel's own do in two or three.
const MAX_DEPTH: usize = 8;

pub(crate) const MAGIC: u16 = 0xeb9f;
/// Name, kind, and size or type.
const HEAD_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
/// Kinds that have members.
pub(crate) const STRUCTURE: u32 = 4;
const UNION: u32 = 5;
const ARRAY: u32 = 3;
const ENUMERATION: u32 = 6;
pub(crate) const POINTER: u32 = 2;
pub(crate) const TYPEDEF: u32 = 8;
/// Kinds that say something of another type: volatile, const, restrict, a tag of a type.
const MODIFIERS: [u32; 4] = [9, 10, 11, 18];
/// So many of them stand before a type at most: C has not more to say.
const MAX_MODIFIERS: usize = 8;
pub(crate) const PROTOTYPE: u32 = 13;

/// Type information.
pub(crate) struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
    /// Where each type starts, by its number; the first is 1.
    starts: Vec<u32>,
}

/// A type: where it stands, and what its head says.
#[derive(Clone, Copy)]
pub(crate) struct Type {
    pub(crate) at: usize,
    pub(crate) name: u32,
    pub(crate) kind: u32,
    pub(crate) members: usize,
    /// Whether the offset of a member shares its number with the bits of a bit field.
    has_bit_fields: bool,
}

impl<'a> Types<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if number(bytes, 0)? as u16 != MAGIC {
            return None;
        }
        let head = number(bytes, 4)? as usize;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = head.checked_add(number(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(number(bytes, at + 4)? as usize)?)
        };
        let mut types = Types { types: section(8)?, names: section(16)?, starts: vec![0] };
        let mut at = 0;
        while at < types.types.len() {
            types.starts.push(at as u32);
            at += types.at(at)?.size()?;
        }
        Some(types)
    }

    pub(crate) fn at(&self, at: usize) -> Option<Type> {
        let info = number(self.types, at + 4)?;
        Some(Type {
            at,
            name: number(self.types, at)?,
            kind: info >> 24 & 0x1f,
            members: info as usize & 0xffff,
            has_bit_fields: info >> 31 != 0,
        })
    }

    pub(crate) fn numbered(&self, number: u32) -> Option<Type> {
        self.at(*self.starts.get(number as usize)? as usize)
    }

    pub(crate) fn name(&self, at: u32) -> Option<&'a [u8]> {
        self.names.get(at as usize..)?.split(|byte| *byte == 0).next()
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Type> {
        self.starts[1..].iter().filter_map(|at| self.at(*at as usize))
    }

    /// Those of this name: the kernel itself has one, a driver may have another.
    pub(crate) fn structures(&self, name: &str) -> impl Iterator<Item = Type> {
        self.all().filter(move |one| one.kind == STRUCTURE && self.name(one.name) == Some(name.as_bytes()))
    }

    /// The type that is left without what only says something of it.
    pub(crate) fn unmodified(&self, mut one: Type) -> Option<Type> {
        for _ in 0..MAX_MODIFIERS {
            if !MODIFIERS.contains(&one.kind) {
                return Some(one);
            }
            one = self.meant_by(one)?;
        }
        None
    }

    /// The type that a name or a pointer stands for.
    pub(crate) fn meant_by(&self, one: Type) -> Option<Type> {
        self.numbered(number(self.types, one.at + 8)?)
    }

    /// The type of a parameter of a function.
    pub(crate) fn parameter(&self, prototype: Type, index: usize) -> Option<Type> {
        self.numbered(number(self.types, prototype.at + HEAD_BYTES + 8 * index + 4)?)
    }

    /// How many bytes into `outer` this member of a member is.
    pub(crate) fn offset(&self, outer: Type, way: &[&str]) -> Option<u32> {
        let (first, rest) = way.split_first()?;
        let (bits, inner) = self.member(outer, first, MAX_DEPTH)?;
        let before = (bits % 8 == 0).then_some(bits / 8)?;
        if rest.is_empty() {
            Some(before)
        } else {
            before.checked_add(self.offset(self.unmodified(self.numbered(inner)?)?, rest)?)
        }
    }

    /// How many bits into `outer` its member is, and the member's type; members of what has no name are its own.
    fn member(&self, outer: Type, name: &str, depth: usize) -> Option<(u32, u32)> {
        if !matches!(outer.kind, STRUCTURE | UNION) || depth == 0 {
            return None;
        }
        (0..outer.members).find_map(|index| {
            let at = outer.at + HEAD_BYTES + index * MEMBER_BYTES;
            let [name_at, inner, offset] = [0, 4, 8].map(|field| number(self.types, at + field));
            let bits = offset? & if outer.has_bit_fields { 0x00ff_ffff } else { u32::MAX };
            match self.name(name_at?)? {
                b"" => {
                    let (more, found) = self.member(self.numbered(inner?)?, name, depth - 1)?;
                    Some((bits.checked_add(more)?, found))
                }
                found => (found == name.as_bytes()).then_some((bits, inner?)),
            }
        })
    }
}

/// A member of a structure.
#[cfg(test)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a [u8],
    /// In bytes, as is its size.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// What tests ask for, to compare structures with those of Rust.
#[cfg(test)]
impl<'a> Types<'a> {
    /// The members of a structure.
    pub(crate) fn members(&self, outer: Type) -> Option<Vec<Member<'a>>> {
        let member = |index: usize| {
            let at = outer.at + HEAD_BYTES + index * MEMBER_BYTES;
            let [name, inner, bits] = [0, 4, 8].map(|field| number(self.types, at + field));
            let bytes = self.bytes_of(self.numbered(inner?)?)?;
            Some(Member { name: self.name(name?)?, offset: bits? as usize / 8, bytes })
        };
        (0..outer.members).map(member).collect()
    }

    /// How many bytes such a value has.
    pub(crate) fn bytes_of(&self, one: Type) -> Option<usize> {
        match one.kind {
            POINTER => Some(8),
            ARRAY => {
                let [inner, count] = [0, 8].map(|field| number(self.types, one.at + HEAD_BYTES + field));
                Some(self.bytes_of(self.numbered(inner?)?)? * count? as usize)
            }
            kind if kind == TYPEDEF || MODIFIERS.contains(&kind) => self.bytes_of(self.meant_by(one)?),
            _ => number(self.types, one.at + 8).map(|bytes| bytes as usize),
        }
    }

    /// The names and numbers of an enumeration.
    pub(crate) fn enumerators(&self, name: &str) -> Option<Vec<(&'a [u8], u32)>> {
        let is_it = |one: &Type| one.kind == ENUMERATION && self.name(one.name) == Some(name.as_bytes());
        let found = self.all().find(is_it)?;
        let entry = |index: usize| {
            let at = found.at + HEAD_BYTES + 8 * index;
            Some((self.name(number(self.types, at)?)?, number(self.types, at + 4)?))
        };
        (0..found.members).map(entry).collect()
    }
}

impl Type {
    /// Its bytes, by its kind (include/uapi/linux/btf.h).
    fn size(&self) -> Option<usize> {
        let more = match self.kind {
            // An integer, a variable, a tag of a declaration.
            1 | 14 | 17 => 4,
            ARRAY => 12,
            // A structure, a union, a section, an enumeration of wide numbers.
            STRUCTURE | UNION | 15 | 19 => self.members * MEMBER_BYTES,
            // As many entries: of a name and a number, or of a name and a type.
            ENUMERATION | PROTOTYPE => self.members * 8,
            // What says no more than another type or a name.
            POINTER | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        Some(HEAD_BYTES + more)
    }
}

pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
