//! All modules of a process at one instant, and the lookup of program counters in them.
//!
//! A file that is loaded twice (`dlmopen`) is two modules. An executable region tells by its file offset which segment of
//! the program headers it is a part of, and so what was added to the addresses of the file; a file may have several
//! executable segments, and a page that two of them share belongs to the one that the other regions of the same load
//! confirm.

use std::sync::Arc;

use object::read::ReadRef;
use profiler_model::RemoteAddr;
use rustc_hash::FxHashMap;

use super::image::{ElfImage, LoadSegment};
use super::module::{CodeAddress, FileState, ModuleIndex, ModuleKind, NativeModule, OpenedFile};
use super::region::MemoryRegion;

/// Executable regions of one process that are looked at. The kernel's usual limit for all regions is 65,530.
const MAX_CODE_REGIONS: usize = 262_144;

/// What the kernel appends to the path of a deleted file.
const DELETED: &str = " (deleted)";

/// The kernel's own image.
const VDSO: &str = "[vdso]";

/// An executable region of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CodeRange {
    start: u64,
    end: u64,
    /// What is subtracted from an address to get the offset in the module.
    bias: u64,
    module: ModuleIndex,
}

/// The modules of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleMap {
    modules: Vec<NativeModule>,
    /// By address, without overlaps.
    ranges: Vec<CodeRange>,
}

/// Where regions come from: they are opened together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Origin<'a> {
    File {
        device: u64,
        inode: u64,
    },
    /// A name in brackets.
    Named(&'a str),
    /// Executable memory without a file, by the number of its first region.
    Anonymous(usize),
}

impl ModuleMap {
    /// The modules of these regions, of which only the executable ones are looked at. `open` is called once for each file, and
    /// for the vDSO, with the first of its regions.
    pub fn new<'a, R: ReadRef<'a>>(
        regions: &[MemoryRegion<'_>],
        mut open: impl FnMut(&MemoryRegion<'_>) -> OpenedFile<R>,
    ) -> Self {
        let mut map = ModuleMap::default();
        let mut code: Vec<MemoryRegion<'_>> =
            regions.iter().filter(|region| region.executable && region.start < region.end).copied().collect();
        code.truncate(MAX_CODE_REGIONS);
        code.sort_by_key(|region| region.start);
        for (origin, regions) in by_origin(&code) {
            match origin {
                Origin::Named(path) if path != VDSO => map.add_anonymous(&regions),
                Origin::Anonymous(_) => map.add_anonymous(&regions),
                Origin::Named(_) | Origin::File { .. } => map.add_opened(&regions, open(&regions[0])),
            }
        }
        map.ranges.sort_by_key(|range| range.start);
        let mut end = 0;
        map.ranges.retain(|range| {
            let is_after = range.start >= end;
            end = end.max(range.end);
            is_after
        });
        map
    }

    /// All modules.
    pub fn modules(&self) -> &[NativeModule] {
        &self.modules
    }

    /// A module by its index.
    pub fn get(&self, module: ModuleIndex) -> Option<&NativeModule> {
        self.modules.get(module.as_usize())
    }

    /// The module with executable code at this address, and where in the module that is.
    pub fn find(&self, pc: RemoteAddr) -> Option<CodeAddress> {
        let pc = pc.as_u64();
        let after = self.ranges.partition_point(|range| range.start <= pc);
        let range = self.ranges[..after].last().filter(|range| pc < range.end)?;
        Some(CodeAddress { module: range.module, offset: pc.wrapping_sub(range.bias) })
    }

    fn add_opened<'a, R: ReadRef<'a>>(&mut self, regions: &[MemoryRegion<'_>], opened: OpenedFile<R>) {
        let is_deleted = regions[0].inode != 0 && regions[0].path.ends_with(DELETED);
        let state = match opened {
            _ if is_deleted => FileState::Deleted,
            OpenedFile::Bytes(_) => FileState::Present,
            OpenedFile::Replaced => FileState::Replaced,
            OpenedFile::Unreadable => FileState::Unreadable,
        };
        let image = match opened {
            OpenedFile::Bytes(bytes) => ElfImage::parse(bytes).ok(),
            OpenedFile::Replaced | OpenedFile::Unreadable => None,
        };
        let biases = match &image {
            Some(image) => biases(image.segments(), regions),
            None => vec![None; regions.len()],
        };
        let mut module = NativeModule {
            kind: ModuleKind::File,
            path: path_of(&regions[0], is_deleted),
            device: regions[0].device,
            inode: regions[0].inode,
            state,
            build_id: image.as_ref().and_then(ElfImage::build_id),
            bias: 0,
        };
        let kind_of_image = if module.inode == 0 { ModuleKind::Vdso } else { ModuleKind::Elf };
        let mut loads: FxHashMap<(ModuleKind, u64), ModuleIndex> = FxHashMap::default();
        for (region, bias) in regions.iter().zip(biases) {
            module.kind = if bias.is_some() { kind_of_image } else { ModuleKind::File };
            module.bias = bias.unwrap_or_else(|| region.start.as_u64().wrapping_sub(region.file_offset));
            let load = loads.entry((module.kind, module.bias));
            let index = *load.or_insert_with(|| added(&mut self.modules, module.clone()));
            self.ranges.push(CodeRange::new(region, module.bias, index));
        }
    }

    fn add_anonymous(&mut self, regions: &[MemoryRegion<'_>]) {
        let module = NativeModule {
            kind: ModuleKind::Anonymous,
            path: Arc::from(regions[0].path),
            device: 0,
            inode: 0,
            state: FileState::Present,
            build_id: None,
            bias: regions[0].start.as_u64(),
        };
        let bias = module.bias;
        let index = added(&mut self.modules, module);
        self.ranges.extend(regions.iter().map(|region| CodeRange::new(region, bias, index)));
    }
}

impl CodeRange {
    fn new(region: &MemoryRegion<'_>, bias: u64, module: ModuleIndex) -> Self {
        CodeRange { start: region.start.as_u64(), end: region.end.as_u64(), bias, module }
    }
}

/// Adds a module. There are no more of them than code regions, whose number has a limit.
fn added(modules: &mut Vec<NativeModule>, module: NativeModule) -> ModuleIndex {
    modules.push(module);
    ModuleIndex::new(modules.len() as u32 - 1)
}

/// The regions by where they come from, in the order of their first region. Anonymous ones that touch are one.
fn by_origin<'p>(code: &[MemoryRegion<'p>]) -> Vec<(Origin<'p>, Vec<MemoryRegion<'p>>)> {
    let mut groups: Vec<(Origin<'p>, Vec<MemoryRegion<'p>>)> = Vec::new();
    let mut places: FxHashMap<Origin<'p>, usize> = FxHashMap::default();
    let mut last_anonymous = (0, RemoteAddr::NULL);
    for (number, region) in code.iter().enumerate() {
        let origin = if region.inode != 0 {
            Origin::File { device: region.device, inode: region.inode }
        } else if region.path.starts_with('[') && !region.path.starts_with("[anon") {
            Origin::Named(region.path)
        } else {
            if last_anonymous.1 != region.start {
                last_anonymous.0 = number;
            }
            last_anonymous.1 = region.end;
            Origin::Anonymous(last_anonymous.0)
        };
        let place = *places.entry(origin).or_insert(groups.len());
        if place == groups.len() {
            groups.push((origin, Vec::new()));
        }
        groups[place].1.push(*region);
    }
    groups
}

fn path_of(region: &MemoryRegion<'_>, is_deleted: bool) -> Arc<str> {
    let path = region.path;
    Arc::from(if is_deleted { path.strip_suffix(DELETED).unwrap_or(path) } else { path })
}

/// What was added to the addresses of the file in each of its regions; `None` for one that no segment maps.
fn biases(segments: &[LoadSegment], regions: &[MemoryRegion<'_>]) -> Vec<Option<u64>> {
    let candidates: Vec<Vec<u64>> = regions.iter().map(|region| candidates(segments, region)).collect();
    let mut votes: FxHashMap<u64, usize> = FxHashMap::default();
    for bias in candidates.iter().flatten() {
        *votes.entry(*bias).or_default() += 1;
    }
    let best = |candidates: &Vec<u64>| {
        // Of equal ones the first counts: the segment that comes first in the file.
        candidates.iter().rev().max_by_key(|bias| votes[bias]).copied()
    };
    candidates.iter().map(best).collect()
}

/// The biases that would explain a region: by its executable segments, else by any segment.
fn candidates(segments: &[LoadSegment], region: &MemoryRegion<'_>) -> Vec<u64> {
    let explained = |executable: bool| -> Vec<u64> {
        let some = segments.iter().filter(|segment| segment.executable == executable);
        let addresses = some.filter_map(|segment| segment.address_of(region.file_offset));
        addresses.map(|address| region.start.as_u64().wrapping_sub(address)).collect()
    };
    Some(explained(true)).filter(|biases| !biases.is_empty()).unwrap_or_else(|| explained(false))
}
