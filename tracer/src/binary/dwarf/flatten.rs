//! A struct with the structs and arrays inside it, as one list of dotted paths.

use gimli::AttributeValue;

use super::{Entry, FieldLayout, Found, Reader, StructLayout, Walk};

/// Structs within structs followed; the deepest path the runtime needs is three.
const DEPTH_LIMIT: usize = 5;
/// Fields looked at for one struct, nested ones included; `runtime.mheap` has some 400.
const FIELD_LIMIT: usize = 20_000;
/// Typedefs of typedefs followed.
const ALIAS_LIMIT: usize = 8;

/// The layout of the struct or named array at `at`; `None` where it does not tell its size.
pub(super) fn layout(walk: &Walk<'_, '_>, at: Found) -> gimli::Result<Option<StructLayout>> {
    let Some((at, entry)) = resolve(walk, at)? else { return Ok(None) };
    let Some(size) = size(&entry) else { return Ok(None) };
    let mut flattener = Flattener { walk, layout: StructLayout { size, ..Default::default() }, left: FIELD_LIMIT };
    flattener.inside(at, &entry, "", 0, 0)?;
    Ok(Some(flattener.layout))
}

/// The entry behind typedefs.
fn resolve<'a>(walk: &Walk<'_, 'a>, mut at: Found) -> gimli::Result<Option<(Found, Entry<'a>)>> {
    for _ in 0..ALIAS_LIMIT {
        let entry = walk.entry(at)?;
        if entry.tag() != gimli::DW_TAG_typedef {
            return Ok(Some((at, entry)));
        }
        match walk.type_of(at.0, &entry) {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

fn size(entry: &Entry<'_>) -> Option<u64> {
    match entry.tag() {
        // Go's pointers carry no size, and 64-bit programs are all we read.
        gimli::DW_TAG_pointer_type | gimli::DW_TAG_subroutine_type => Some(8),
        _ => entry.attr_value(gimli::DW_AT_byte_size)?.udata_value(),
    }
}

struct Flattener<'w, 'd, 'a> {
    walk: &'w Walk<'d, 'a>,
    layout: StructLayout,
    /// Fields that may still be looked at: a struct that holds itself must not keep us here.
    left: usize,
}

impl<'a> Flattener<'_, '_, 'a> {
    /// Adds the members of the struct, or the first element of the array, described by `entry`.
    fn inside(&mut self, at: Found, entry: &Entry<'a>, prefix: &str, base: u64, depth: usize) -> gimli::Result<()> {
        match entry.tag() {
            _ if depth >= DEPTH_LIMIT => Ok(()),
            gimli::DW_TAG_structure_type => self.members(at, prefix, base, depth),
            gimli::DW_TAG_array_type => self.field(at, entry, format!("{prefix}[0]"), base, depth),
            _ => Ok(()),
        }
    }

    fn members(&mut self, at: Found, prefix: &str, base: u64, depth: usize) -> gimli::Result<()> {
        let Some((unit, abbreviations)) = self.walk.unit(at.0) else { return Ok(()) };
        let mut entries = unit.entries_raw(abbreviations, Some(at.1))?;
        let mut member = Entry::null();
        entries.read_entry(&mut member)?;
        while !entries.is_empty() && entries.next_depth() > 0 && self.left > 0 {
            self.left -= 1;
            let direct = entries.next_depth() == 1;
            if !entries.read_entry(&mut member)? || !direct || member.tag() != gimli::DW_TAG_member {
                continue;
            }
            let Some(name) = self.walk.name(&member).map(String::from_utf8_lossy) else { continue };
            let offset = match member.attr_value(gimli::DW_AT_data_member_location) {
                Some(AttributeValue::Exprloc(expression)) => constant(expression),
                Some(AttributeValue::Block(block)) => constant(gimli::Expression(block)),
                other => other.and_then(|value| value.udata_value()),
            };
            let Some(offset) = offset.and_then(|offset| base.checked_add(offset)) else { continue };
            let path = if prefix.is_empty() { name.into_owned() } else { format!("{prefix}.{name}") };
            self.field(at, &member, path, offset, depth)?;
        }
        Ok(())
    }

    /// Adds the field at `path`, of the type that `owner` refers to, and what is inside it.
    fn field(&mut self, at: Found, owner: &Entry<'a>, path: String, base: u64, depth: usize) -> gimli::Result<()> {
        let Some(kind) = self.walk.type_of(at.0, owner) else { return Ok(()) };
        let Some((at, entry)) = resolve(self.walk, kind)? else { return Ok(()) };
        self.inside(at, &entry, &path, base, depth + 1)?;
        self.layout.fields.insert(path, FieldLayout { offset: base, size: size(&entry).unwrap_or_default() });
        Ok(())
    }
}

/// DWARF 2's way to say an offset: the expression `DW_OP_plus_uconst N`.
fn constant(expression: gimli::Expression<Reader<'_>>) -> Option<u64> {
    let (&first, rest) = expression.0.slice().split_first()?;
    if first != gimli::DW_OP_plus_uconst.0 {
        return None;
    }
    gimli::leb128::read::unsigned(&mut Reader::new(rest, gimli::LittleEndian)).ok()
}
