//! An executable's facts, computed once per file.
//!
//! In: an open file. Out: [`Binary`]: architecture, build info, build ids, segments, symbols, functions, DWARF layouts, all
//! by link-time address ([`crate::units::Pc`]). It must not know of any process, nor what the facts mean to the Go runtime
//! (that is `go_runtime`).
//!
//! Everything in the file is hostile: wrong, huge, cyclic, cut short. Sizes are bounded before memory is taken, walks are
//! bounded by what they walk, and what does not add up is a [`BinaryError`].

mod build_info;
pub(crate) mod bytes;
mod dwarf;
mod error;
mod file;
mod identify;
mod image;
mod moduledata;
mod pclntab;
mod relocations;
mod symbols;
mod version;

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

pub use build_info::BuildInfo;
pub use dwarf::{FieldLayout, StructLayout, Structs};
pub use error::BinaryError;
pub use image::{Arch, BuildIds, Image, Segment};
pub use moduledata::ModuleData;
pub use pclntab::{Argument, Frame, Function, Functions, LiveArguments};
pub use symbols::Symbol;
pub use version::GoVersion;

use crate::units::{FileOffset, Pc};

/// A Go executable.
///
/// Holds the open file, its function table's bytes and a few kilobytes more; the rest is read when asked for. It can be
/// shared between threads and between all processes that run the file.
#[derive(Debug)]
pub struct Binary {
    image: Arc<Image>,
    build_info: BuildInfo,
    version: GoVersion,
    functions: Functions,
}

impl Binary {
    /// Reads the facts of `file`.
    ///
    /// # Errors
    /// One [`BinaryError`] for each way in which a file is no Go program that gotracer can trace.
    pub fn open(file: File) -> Result<Self, BinaryError> {
        let image = Arc::new(Image::open(file)?);
        let Some(build_info) = BuildInfo::read(&image)? else { return Err(identify::not_go(&image)) };
        let text = build_info.go_version.clone();
        let version = build_info.version().ok_or(BinaryError::Version { text })?;
        if version.minor() < 18 {
            return Err(BinaryError::GoTooOld { version: version.to_string() });
        }
        let functions = Functions::open(Arc::clone(&image), &version)?;
        Ok(Self { image, build_info, version, functions })
    }

    /// The processor it was built for.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.image.arch()
    }

    /// The Go version that built it.
    #[must_use]
    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// The module and the settings of the build.
    #[must_use]
    pub fn build_info(&self) -> &BuildInfo {
        &self.build_info
    }

    /// Go's and GNU's build ids.
    #[must_use]
    pub fn build_ids(&self) -> &BuildIds {
        self.image.build_ids()
    }

    /// Whether the kernel chooses where to load it.
    #[must_use]
    pub fn is_pie(&self) -> bool {
        self.image.is_pie()
    }

    /// Segments, bytes, pointers, symbols.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The function table.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The module data: where text, data and tables lie.
    #[must_use]
    pub fn module(&self) -> &ModuleData {
        self.functions.module()
    }

    /// Where the byte at `pc` lies in the file.
    #[must_use]
    pub fn file_offset(&self, pc: Pc) -> Option<FileOffset> {
        self.image.file_offset(pc)
    }

    /// The machine code of `range`.
    ///
    /// # Errors
    /// As [`Image::code`].
    pub fn code(&self, range: Range<Pc>) -> Result<Vec<u8>, BinaryError> {
        self.image.code(range)
    }

    /// The first symbol called `name`; `None` where it or the symbol table is not there.
    ///
    /// # Errors
    /// As [`Image::symbols`].
    pub fn symbol(&self, name: &str) -> Result<Option<Symbol>, BinaryError> {
        self.image.symbol(name)
    }

    /// The layouts of the structs called `names`, as far as the DWARF tells them; `None` where there is no DWARF.
    ///
    /// # Errors
    /// [`BinaryError::Corrupt`] for DWARF that is there and cannot be read.
    pub fn structs(&self, names: &[&str]) -> Result<Option<Structs>, BinaryError> {
        dwarf::structs(&self.image, names)
    }
}
