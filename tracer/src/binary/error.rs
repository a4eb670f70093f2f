//! What can be wrong with an executable: each error names the thing and the way out.

use std::io;

use crate::units::Pc;

/// Why the facts of an executable could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// The operating system refused a read.
    #[error("cannot read the {what} of the executable: {source}")]
    Io {
        /// What was being read.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// No ELF magic: a script, a core of something else, another system's format.
    #[error("not an ELF executable; give the program itself, not a script or wrapper that starts it")]
    NotElf,
    /// ELF class 32.
    #[error("a 32-bit executable; gotracer reads 64-bit Go programs (amd64, arm64) only")]
    Bits32,
    /// ELF data encoding 2.
    #[error("a big-endian executable; gotracer reads little-endian Go programs (amd64, arm64) only")]
    BigEndian,
    /// Another processor.
    #[error("built for another processor (ELF machine {machine}); gotracer knows amd64 (62) and arm64 (183)")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// An object file or a core dump.
    #[error(
        "an ELF file of type {kind}, neither an executable (2) nor position-independent (3); give the linked program"
    )]
    NotExecutable {
        /// `e_type`.
        kind: u16,
    },
    /// A packer hid the program.
    #[error("packed by UPX, so its tables cannot be read from the file; ship the program unpacked (`upx -d`)")]
    Packed,
    /// No trace of a Go toolchain.
    #[error(
        "not a Go program: no Go build info and no Go function table; if a wrapper starts it, give the child's PID"
    )]
    NotGo,
    /// Built by gccgo.
    #[error(
        "built by gccgo, whose runtime is another one; build with the standard toolchain (`go build -compiler gc`)"
    )]
    GccGo,
    /// Built by TinyGo.
    #[error("built by TinyGo, whose runtime is another one; build with the standard Go toolchain")]
    TinyGo,
    /// Built by a Go release before 1.18.
    #[error("built with {version}, and gotracer needs Go 1.18 or newer; rebuild with a newer Go")]
    GoTooOld {
        /// The version in the binary, or what is known of it.
        version: String,
    },
    /// The version in the build info cannot be understood.
    #[error("the Go version {text:?} in the build info is not understood; build with a released toolchain (go1.N.P)")]
    Version {
        /// As found.
        text: String,
    },
    /// The function table is of a format we have not met.
    #[error(
        "the Go function table has the unknown magic {magic:#x}; this Go ({version}) is newer than this gotracer: update"
    )]
    PclntabMagic {
        /// As found.
        magic: u32,
        /// The build info's version.
        version: String,
    },
    /// A Go program whose function table is not there.
    #[error("built with {version}, but its function table (.gopclntab) is missing; was it removed or packed? keep it")]
    NoPclntab {
        /// The build info's version.
        version: String,
    },
    /// A Go program whose module data could not be located.
    #[error("built with {version}, but no runtime.moduledata fits its function table; a c-shared or packed file?")]
    NoModuleData {
        /// The build info's version.
        version: String,
    },
    /// A structure of the file contradicts itself or ends early.
    #[error("the executable is corrupt or cut short: {what}: {why}; compare it with the one that was shipped")]
    Corrupt {
        /// Which section or structure.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A structure is too large to be believed.
    #[error("{what} is {size} bytes long, above the limit of {limit}; the executable is corrupt")]
    TooLarge {
        /// Which section or structure.
        what: &'static str,
        /// Its size, in bytes.
        size: u64,
        /// What we accept, in bytes.
        limit: u64,
    },
    /// An address that no loaded segment holds.
    #[error("the executable has nothing at {pc} ({len} bytes); the file and the process may differ")]
    Unmapped {
        /// The first address asked for.
        pc: Pc,
        /// How many bytes.
        len: u64,
    },
}

impl BinaryError {
    /// A short form for the commonest one.
    pub(crate) fn corrupt(what: &'static str, why: &'static str) -> Self {
        BinaryError::Corrupt { what, why }
    }
}
