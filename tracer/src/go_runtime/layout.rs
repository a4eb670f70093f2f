//! Where the runtime's structs have their fields, typed.
//!
//! In: a binary. Out: a [`Layout`], from the binary's own DWARF, or, where it has none, from the table that
//! `cargo xtask layouts` made with the DWARF of a real toolchain. No default arm, no guess: a version without DWARF and
//! without a table is an error. Knows nothing of processes.
//!
//! The list of what is wanted is in [`super::structs`]: both the reading of DWARF and the making of tables go by it.

use serde::Serialize;

pub(super) use super::layouts_generated::TABLES;
use crate::binary::{Arch, Binary, BinaryError, GoVersion, StructLayout, Structs};
use crate::units::RemoteAddr;

/// Where a field of a runtime struct stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Field {
    /// From the start of the struct, in bytes.
    pub offset: u32,
    /// In bytes. Some fields change their width between versions: `mspan.nelems` is 8 bytes up to Go 1.21, then 2.
    pub size: u32,
}

impl Field {
    /// The field's value in `bytes`, a copy of its struct: an unsigned little-endian number of the field's own width. Of
    /// what is wider than 8 bytes, the first word (the pointer of a slice or string). `None` where `bytes` ends before.
    #[must_use]
    pub fn read(self, bytes: &[u8]) -> Option<u64> {
        let (start, len) = (self.offset as usize, self.size.min(8) as usize);
        let field = bytes.get(start..start.checked_add(len)?)?;
        let mut word = [0; 8];
        word.get_mut(..len)?.copy_from_slice(field);
        Some(u64::from_le_bytes(word))
    }

    /// The field's address in the struct at `base`.
    #[must_use]
    pub fn at(self, base: RemoteAddr) -> RemoteAddr {
        RemoteAddr(base.0.wrapping_add(u64::from(self.offset)))
    }
}

/// Where a layout was taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutSource {
    /// The binary's own debug information.
    Dwarf,
    /// The table for its Go minor and processor.
    Table {
        /// The release whose DWARF the table was made from, such as `go1.27.3`.
        verified_with: &'static str,
    },
}

/// Why the layout of a binary's runtime is not known.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// No DWARF and no table.
    #[error(
        "Go 1.{minor} is unknown to this gotracer (knows {known}); build the program with DWARF (without -ldflags=-w) or update gotracer"
    )]
    UnknownVersion {
        /// The N of Go 1.N.
        minor: u16,
        /// The versions that tables exist for.
        known: String,
    },
    /// A development tree's layouts are nobody's.
    #[error(
        "built by {version}, a development toolchain, and without DWARF; build the program with DWARF (without -ldflags=-w)"
    )]
    Devel {
        /// As in the build info.
        version: String,
    },
    /// An experiment that moves fields.
    #[error(
        "built by {version} without DWARF, and the experiment {experiment} moves fields; build it with DWARF (without -ldflags=-w)"
    )]
    Experiment {
        /// As in the build info.
        version: String,
        /// Its name.
        experiment: String,
    },
    /// A struct that every version has is not there.
    #[error("{structure} is not in the {from} of this {version} program; please report it")]
    MissingStruct {
        /// Its name.
        structure: &'static str,
        /// DWARF or table.
        from: &'static str,
        /// As in the build info.
        version: String,
    },
    /// A field that this version has is not there.
    #[error(
        "{structure} has no field {field} in the {from} of this {version} program; its runtime is not one gotracer knows, please report it"
    )]
    MissingField {
        /// The struct's name.
        structure: &'static str,
        /// The field's path.
        field: &'static str,
        /// DWARF or table.
        from: &'static str,
        /// As in the build info.
        version: String,
    },
    /// The DWARF cannot be read, and no table can stand in.
    #[error(transparent)]
    Binary(#[from] BinaryError),
}

/// The generated table of one Go minor on one processor.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) minor: u16,
    pub(crate) arch: Arch,
    pub(crate) verified_with: &'static str,
    pub(crate) structs: &'static [TableStruct],
    pub(crate) wait_reasons: &'static [&'static str],
}

/// Name, size in bytes, and path, offset, size of each field.
pub(crate) type TableStruct = (&'static str, u32, &'static [(&'static str, u32, u32)]);

/// The experiments that change the structs we read. All others (crypto back ends, `greenteagc`, ...) leave them alone.
///
/// - `staticlockranking` widens `mutex`: <https://github.com/golang/go/blob/go1.27.3/src/runtime/lockrank_on.go#L22-L26>
/// - `pagetrace` (1.20, 1.21) widens `p`: <https://github.com/golang/go/blob/go1.21.13/src/runtime/pagetrace_on.go>
/// - `exectracer2` (1.22) chooses the trace state inside `g`, `m` and `p`.
const MOVING_EXPERIMENTS: [&str; 4] = ["staticlockranking", "pagetrace", "exectracer2", "noexectracer2"];

impl Table {
    pub(crate) fn of(minor: u16, arch: Arch) -> Option<&'static Table> {
        TABLES.iter().find(|table| table.minor == minor && table.arch == arch)
    }

    /// The table that speaks for a binary of `version`.
    fn for_version(version: &GoVersion, arch: Arch) -> Result<&'static Table, LayoutError> {
        if version.is_devel() {
            return Err(LayoutError::Devel { version: version.to_string() });
        }
        if let Some(experiment) = version.experiments().find(|name| MOVING_EXPERIMENTS.contains(name)) {
            let (version, experiment) = (version.to_string(), experiment.to_owned());
            return Err(LayoutError::Experiment { version, experiment });
        }
        let unknown = LayoutError::UnknownVersion { minor: version.minor(), known: known_versions() };
        Table::of(version.minor(), arch).ok_or(unknown)
    }
}

/// The versions that tables exist for, as `1.19, 1.21 to 1.27`.
#[must_use]
pub fn known_versions() -> String {
    let mut minors: Vec<u16> = TABLES.iter().map(|table| table.minor).collect();
    minors.sort_unstable();
    minors.dedup();
    let runs = minors.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, .., last] => format!("1.{first} to 1.{last}"),
        [only] => format!("1.{only}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// What is known of the structs of one binary: DWARF, table, or both. A struct that the DWARF leaves out (the linker drops
/// types that nothing in the program uses) is taken from the table.
pub(crate) struct Facts<'a> {
    pub(crate) version: &'a GoVersion,
    pub(crate) dwarf: Option<&'a Structs>,
    pub(crate) table: Option<&'static Table>,
}

/// One struct's facts, from one of the two.
pub(crate) struct StructFacts<'a> {
    facts: &'a Facts<'a>,
    name: &'static str,
    from: &'static str,
    size: u32,
    fields: Fields<'a>,
}

/// Where one struct's fields are looked up.
enum Fields<'a> {
    Dwarf(&'a StructLayout),
    Table(&'static [(&'static str, u32, u32)]),
}

impl<'a> Facts<'a> {
    /// The struct that goes by one of `names` (it was renamed between versions).
    pub(crate) fn structure(&'a self, names: &'static [&'static str]) -> Option<StructFacts<'a>> {
        names.iter().find_map(|name| self.in_dwarf(name)).or_else(|| names.iter().find_map(|name| self.in_table(name)))
    }

    fn in_dwarf(&'a self, name: &'static str) -> Option<StructFacts<'a>> {
        let layout = self.dwarf?.get(name)?;
        let size = u32::try_from(layout.size).ok()?;
        Some(StructFacts { facts: self, name, from: "DWARF", size, fields: Fields::Dwarf(layout) })
    }

    fn in_table(&'a self, name: &'static str) -> Option<StructFacts<'a>> {
        let &(_, size, fields) = self.table?.structs.iter().find(|(n, ..)| *n == name)?;
        Some(StructFacts { facts: self, name, from: "table", size, fields: Fields::Table(fields) })
    }

    pub(crate) fn missing_struct(&self, structure: &'static str) -> LayoutError {
        let from = if self.dwarf.is_some() { "DWARF" } else { "table" };
        LayoutError::MissingStruct { structure, from, version: self.version.to_string() }
    }
}

impl Fields<'_> {
    fn find(&self, path: &str) -> Option<Field> {
        match self {
            Fields::Dwarf(layout) => {
                let field = layout.fields.get(path)?;
                Some(Field { offset: u32::try_from(field.offset).ok()?, size: u32::try_from(field.size).ok()? })
            }
            Fields::Table(fields) => {
                let &(_, offset, size) = fields.iter().find(|(p, ..)| *p == path)?;
                Some(Field { offset, size })
            }
        }
    }
}

impl StructFacts<'_> {
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// The first of `paths` that is there (a field was renamed, or moved into another, between versions).
    pub(crate) fn field(&self, paths: &[&'static str]) -> Option<Field> {
        paths.iter().find_map(|path| self.fields.find(path))
    }

    pub(crate) fn minor(&self) -> u16 {
        self.facts.version.minor()
    }

    pub(crate) fn missing(&self, paths: &[&'static str]) -> LayoutError {
        let field = paths.last().copied().unwrap_or_default();
        let version = self.facts.version.to_string();
        LayoutError::MissingField { structure: self.name, field, from: self.from, version }
    }
}

use super::structs::Layout;

impl Layout {
    /// The layout of the runtime in `binary`.
    ///
    /// DWARF that is corrupt counts as absent where a table can stand in.
    ///
    /// # Errors
    /// [`LayoutError`]: the version is not known, or what is known lacks a field.
    pub fn of(binary: &Binary) -> Result<Self, LayoutError> {
        let version = binary.version();
        let table = Table::for_version(version, binary.arch());
        let dwarf = match (binary.structs(&Layout::wanted_structs()), &table) {
            (Ok(dwarf), _) => dwarf,
            (Err(_), Ok(_)) => None,
            (Err(error), Err(_)) => return Err(error.into()),
        };
        // A stripped cgo program may keep the DWARF of its C parts alone.
        let dwarf = dwarf.filter(|structs| structs.contains_key("runtime.g"));
        match (dwarf, table) {
            (Some(dwarf), table) => {
                let facts = Facts { version, dwarf: Some(&dwarf), table: table.ok() };
                Self::from_facts(&facts, LayoutSource::Dwarf)
            }
            (None, Ok(table)) => {
                let source = LayoutSource::Table { verified_with: table.verified_with };
                Self::from_facts(&Facts { version, dwarf: None, table: Some(table) }, source)
            }
            (None, Err(error)) => Err(error),
        }
    }

    /// The layout that the table has for `version` on `arch`, whatever the DWARF says.
    ///
    /// # Errors
    /// As [`Layout::of`].
    pub fn of_table(version: &GoVersion, arch: Arch) -> Result<Self, LayoutError> {
        let table = Table::for_version(version, arch)?;
        let source = LayoutSource::Table { verified_with: table.verified_with };
        Self::from_facts(&Facts { version, dwarf: None, table: Some(table) }, source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(version: &str) -> Result<Layout, LayoutError> {
        Layout::of_table(&GoVersion::parse(version).expect("a version"), Arch::Arm64)
    }

    #[test]
    fn known_versions_read_well() {
        assert_eq!(known_versions(), "1.19, 1.21 to 1.27");
    }

    #[test]
    fn every_table_is_whole() {
        for entry in TABLES {
            let layout = table(entry.verified_with).expect("a layout");
            assert_eq!(layout.source, LayoutSource::Table { verified_with: entry.verified_with });
            assert_eq!(layout.g.syscallbp.is_some(), entry.minor >= 23, "{}", entry.verified_with);
            assert_eq!(layout.timers.is_some(), entry.minor >= 23, "{}", entry.verified_with);
        }
    }

    #[test]
    fn an_unknown_version_is_an_error_that_says_what_is_known() {
        for version in ["go1.18.10", "go1.20.14", "go1.28.0"] {
            let error = table(version).expect_err("no table").to_string();
            assert!(error.contains("is unknown to this gotracer (knows 1.19, 1.21 to 1.27)"), "{error}");
        }
        assert!(matches!(table("devel go1.27-abc Tue"), Err(LayoutError::Devel { .. })));
        assert!(matches!(table("go1.27.3 X:staticlockranking"), Err(LayoutError::Experiment { .. })));
        assert!(table("go1.27.3 X:boringcrypto,greenteagc").is_ok());
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut structs: Structs =
            Layout::wanted_structs().into_iter().map(|n| (n.to_owned(), Default::default())).collect();
        structs.remove("runtime.m");
        let version = GoVersion::parse("go1.30.1").expect("a version");
        let facts = Facts { version: &version, dwarf: Some(&structs), table: None };
        let error = Layout::from_facts(&facts, LayoutSource::Dwarf).expect_err("an empty g").to_string();
        assert!(error.starts_with("runtime.g has no field stack.lo in the DWARF of this go1.30.1 program"), "{error}");
    }

    #[test]
    fn fields_are_read_by_their_width() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(Field { offset: 1, size: 2 }.read(&bytes), Some(0x0302));
        assert_eq!(Field { offset: 1, size: 24 }.read(&bytes), Some(0x0908_0706_0504_0302));
        assert_eq!(Field { offset: 2, size: 8 }.read(&bytes), None);
        assert_eq!(Field { offset: u32::MAX, size: 8 }.read(&bytes), None);
    }
}
