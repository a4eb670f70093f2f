//! Layouts of structs, as the compiler's DWARF tells them.
//!
//! In: the image and the names wanted. Out: [`Structs`]. Only the compile units of package `runtime` are walked as long as
//! they hold everything; Go's linker writes all types into a second unit of that name. DWARF 4 and 5 (Go 1.25 and later), plain
//! or compressed.

mod flatten;
mod sections;

use std::collections::{BTreeMap, HashMap};

use gimli::{DebugInfoOffset, DebuggingInformationEntry, UnitHeader, UnitOffset};

use gimli::Section as _;

use super::error::BinaryError;
use super::image::Image;
use sections::{Dwarf, Reader};

/// The layouts found, by the struct's name.
pub type Structs = BTreeMap<String, StructLayout>;

/// Where the fields of one struct stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StructLayout {
    /// Its size, in bytes.
    pub size: u64,
    /// Byte offset and size of each field by dotted path: `sched.pc` is a field of a field, `pause[0]` the first element
    /// of an array.
    pub fields: BTreeMap<String, FieldLayout>,
}

/// Where a field stands and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// From the start of the struct, in bytes.
    pub offset: u64,
    /// In bytes; 0 where the type does not say.
    pub size: u64,
}

/// Units walked at most; Kubernetes' largest binary has some 3,000.
const UNIT_LIMIT: usize = 100_000;

/// Attributes read at most; Kubernetes' largest binary has some 60 million.
const ATTRIBUTE_LIMIT: usize = 500_000_000;

/// A unit, and the place in it of the entry that a name was found at.
type Found = (usize, UnitOffset<usize>);

/// The layouts of the structs called `names`, as far as they are there; `None` without DWARF.
pub(crate) fn structs(image: &Image, names: &[&str]) -> Result<Option<Structs>, BinaryError> {
    let Some(sections) = sections::load(image)? else { return Ok(None) };
    let dwarf = sections.dwarf();
    let mut walk = Walk::new(&dwarf).map_err(corrupt)?;
    let found = walk.find(names).map_err(corrupt)?;
    let mut structs = Structs::new();
    for (name, at) in found {
        if let Some(layout) = flatten::layout(&walk, at).map_err(corrupt)? {
            structs.insert(name, layout);
        }
    }
    Ok(Some(structs))
}

fn corrupt(_: gimli::Error) -> BinaryError {
    BinaryError::corrupt(".debug_info", "its entries contradict their own form")
}

/// A type entry, and the unit it stands in.
type Entry<'a> = DebuggingInformationEntry<Reader<'a>>;

/// The units, with what they share.
struct Walk<'d, 'a> {
    dwarf: &'d Dwarf<'a>,
    units: Vec<UnitHeader<Reader<'a>>>,
    /// By their offset: Go's linker gives all units one table.
    abbreviations: HashMap<usize, gimli::Abbreviations>,
    /// Attributes that may still be read: they may take no room in the file, so its size bounds nothing.
    left: usize,
}

/// The abbreviation tables that `units` use. Each is read up to where the next one begins, so that tables without an end
/// cost no more than the section is long.
fn abbreviations(
    dwarf: &Dwarf<'_>,
    units: &[UnitHeader<Reader<'_>>],
) -> gimli::Result<HashMap<usize, gimli::Abbreviations>> {
    let section = dwarf.debug_abbrev.reader().slice();
    let mut starts: Vec<usize> = units.iter().map(|unit| unit.debug_abbrev_offset().0).collect();
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().copied().skip(1).chain([section.len()]);
    let table = |(start, end): (usize, usize)| {
        let bytes = section.get(start..end).ok_or(gimli::Error::OffsetOutOfBounds(start as u64))?;
        let table = gimli::DebugAbbrev::new(bytes, gimli::LittleEndian).abbreviations(gimli::DebugAbbrevOffset(0))?;
        Ok((start, table))
    };
    starts.iter().copied().zip(ends).map(table).collect()
}

impl<'d, 'a> Walk<'d, 'a> {
    fn new(dwarf: &'d Dwarf<'a>) -> gimli::Result<Self> {
        let mut units = Vec::new();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            if units.len() >= UNIT_LIMIT {
                break;
            }
            units.push(header);
        }
        let abbreviations = abbreviations(dwarf, &units)?;
        Ok(Self { dwarf, units, abbreviations, left: ATTRIBUTE_LIMIT })
    }

    /// The entries that define `names`: in the units of package runtime, then, for what is missing, in all others.
    fn find(&mut self, names: &[&str]) -> gimli::Result<BTreeMap<String, Found>> {
        let mut missing: Vec<&str> = names.to_vec();
        let mut found = BTreeMap::new();
        let is_runtime = |i: &usize| self.unit_name(*i).is_some_and(|name| name == b"runtime");
        let (runtime, others): (Vec<usize>, Vec<usize>) = (0..self.units.len()).partition(is_runtime);
        // Types stand in the last unit of that name.
        for index in runtime.into_iter().rev().chain(others) {
            if missing.is_empty() {
                break;
            }
            self.find_in(index, &mut missing, &mut found)?;
        }
        Ok(found)
    }

    fn find_in(
        &mut self,
        index: usize,
        missing: &mut Vec<&str>,
        found: &mut BTreeMap<String, Found>,
    ) -> gimli::Result<()> {
        let mut left = self.left;
        let Some((unit, abbreviations)) = self.unit(index) else { return Ok(()) };
        let mut entries = unit.entries_raw(abbreviations, None)?;
        let mut entry = Entry::null();
        while !missing.is_empty() && !entries.is_empty() {
            let depth = entries.next_depth();
            let read = entries.read_entry(&mut entry)?;
            left = left.checked_sub(entry.attrs().len()).ok_or(gimli::Error::TooManyIterations)?;
            if !read || depth != 1 {
                continue;
            }
            if !matches!(entry.tag(), gimli::DW_TAG_structure_type | gimli::DW_TAG_typedef) {
                continue;
            }
            let Some(name) = self.name(&entry) else { continue };
            let Some(i) = missing.iter().position(|wanted| wanted.as_bytes() == name) else { continue };
            // A struct is written with a typedef of the same name beside it; an array type has the typedef alone.
            if entry.tag() == gimli::DW_TAG_typedef && !self.is_array(index, &entry) {
                continue;
            }
            found.insert(missing.swap_remove(i).to_owned(), (index, entry.offset()));
        }
        self.left = left;
        Ok(())
    }

    fn is_array(&self, index: usize, typedef: &Entry<'a>) -> bool {
        let target = self.type_of(index, typedef).and_then(|at| self.entry(at).ok());
        target.is_some_and(|target| target.tag() == gimli::DW_TAG_array_type)
    }

    fn unit(&self, index: usize) -> Option<(&UnitHeader<Reader<'a>>, &gimli::Abbreviations)> {
        let unit = self.units.get(index)?;
        Some((unit, self.abbreviations.get(&unit.debug_abbrev_offset().0)?))
    }

    fn unit_name(&self, index: usize) -> Option<&'a [u8]> {
        let (unit, _) = self.unit(index)?;
        let root = self.entry((index, unit.root_offset())).ok()?;
        self.name(&root)
    }

    fn name(&self, entry: &Entry<'a>) -> Option<&'a [u8]> {
        self.dwarf.attr_line_string(entry.attr_value(gimli::DW_AT_name)?).ok().map(|name| name.slice())
    }

    fn entry(&self, (index, offset): Found) -> gimli::Result<Entry<'a>> {
        let (unit, abbreviations) = self.unit(index).ok_or(gimli::Error::OffsetOutOfBounds(0))?;
        unit.entry(abbreviations, offset)
    }

    /// Where the type of `entry`, which stands in unit `index`, is described.
    fn type_of(&self, index: usize, entry: &Entry<'a>) -> Option<Found> {
        match entry.attr_value(gimli::DW_AT_type)? {
            gimli::AttributeValue::UnitRef(offset) => Some((index, offset)),
            gimli::AttributeValue::DebugInfoRef(offset) => self.locate(offset),
            _ => None,
        }
    }

    fn locate(&self, offset: DebugInfoOffset<usize>) -> Option<Found> {
        let start = |unit: &UnitHeader<Reader<'a>>| unit.debug_info_offset().unwrap_or(DebugInfoOffset(usize::MAX));
        let index = self.units.partition_point(|unit| start(unit) <= offset).checked_sub(1)?;
        Some((index, offset.to_unit_offset(self.units.get(index)?)?))
    }
}
