//! Machine code as far as a probe cares.
//!
//! In: the bytes of one function. Out: its [`Instruction`]s: where control goes from each, and how the kernel executes
//! it under a uprobe, which decides what a hit costs ([`Execution`]). Must not know which functions matter.

mod arm64;
mod x86_64;

use crate::binary::Arch;
use crate::units::Pc;

/// One instruction of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its address.
    pub pc: Pc,
    /// Its length in bytes.
    pub len: u8,
    /// Where control goes from it.
    pub flow: Flow,
    /// How the kernel executes it under a probe.
    pub execution: Execution,
    /// Whether it is the nop that can be [`Execution::Called`].
    pub is_nop5: bool,
    /// Whether it leaves the register of the first argument and result (RAX, X0) as it was. False if not known.
    pub keeps_first_register: bool,
}

/// Where control goes from an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next instruction.
    Next,
    /// To this address and, on return, to the next instruction.
    Call(Pc),
    /// To this address.
    Jump(Pc),
    /// To this address or to the next instruction.
    Branch(Pc),
    /// By an indirect jump, to wherever.
    Computed,
    /// To an address that is not in the code: indirect calls, returns, traps.
    Elsewhere,
}

/// How the kernel executes an instruction on which a uprobe stands.
///
/// One trap, but for the first; then the instruction itself:
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// It is a five-byte nop, for which the kernel puts a call into the code once it has been hit: no trap.
    ///
    /// x86_64, since 6.18: `arch_uprobe_optimize` of
    /// <https://github.com/torvalds/linux/blob/v6.18/arch/x86/kernel/uprobes.c>. What is called is a page that the kernel
    /// maps into the process, `[uprobes-trampoline]`, and leaves there.
    Called,
    /// In software, without a second trap.
    ///
    /// x86_64: `branch_setup_xol_ops` and `push_setup_xol_ops` of
    /// <https://github.com/torvalds/linux/blob/v6.18/arch/x86/kernel/uprobes.c>: one-byte nop, `push reg`, `jmp`,
    /// `jcc`, `call rel32`; since Linux 4.18 or earlier. arm64: `arm_probe_decode_insn` of
    /// <https://github.com/torvalds/linux/blob/v6.18/arch/arm64/kernel/probes/decode-insn.c>: branches, `adr`,
    /// `adrp`, literal loads; since 4.10.
    Emulated,
    /// A copy of it is single-stepped out of line: a second trap, some twenty times dearer in a virtual machine.
    SingleStepped,
    /// The kernel refuses a probe on it or, worse, accepts the probe before the program starts and never fires.
    Rejected,
}

/// Decodes a function. Ends early at what is not an instruction: the padding behind a function, or data.
#[must_use]
pub fn decode(arch: Arch, entry: Pc, code: &[u8]) -> Vec<Instruction> {
    match arch {
        Arch::Amd64 => x86_64::decode(entry, code),
        Arch::Arm64 => arm64::decode(entry, code),
    }
}

/// One instruction in assembler notation, for a person to read.
#[must_use]
pub fn text(arch: Arch, pc: Pc, code: &[u8]) -> String {
    match arch {
        Arch::Amd64 => x86_64::text(pc, code),
        Arch::Arm64 => arm64::text(code),
    }
}
