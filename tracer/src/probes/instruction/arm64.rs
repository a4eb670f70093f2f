//! arm64, decoded by yaxpeax-arm.

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{InstDecoder, Opcode, Operand};

use super::{Execution, Flow, Instruction};
use crate::units::Pc;

const INSTRUCTION_BYTES: usize = 4;

pub(super) fn decode(entry: Pc, code: &[u8]) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    for (pc, word) in (entry.0..).step_by(INSTRUCTION_BYTES).zip(code.chunks_exact(INSTRUCTION_BYTES)) {
        let Some(decoded) = decode_one(word) else { break };
        instructions.push(Instruction {
            pc: Pc(pc),
            len: INSTRUCTION_BYTES as u8,
            flow: flow(pc, &decoded),
            execution: execution(&decoded),
            is_nop5: false,
            keeps_first_register: false,
        });
    }
    instructions
}

fn decode_one(word: &[u8]) -> Option<yaxpeax_arm::armv8::a64::Instruction> {
    InstDecoder::default().decode(&mut U8Reader::new(word)).ok()
}

fn flow(pc: u64, decoded: &yaxpeax_arm::armv8::a64::Instruction) -> Flow {
    let target = decoded.operands.iter().find_map(|operand| match operand {
        Operand::PCOffset(offset) => Some(Pc(pc.wrapping_add_signed(*offset))),
        _ => None,
    });
    match (decoded.opcode, target) {
        (Opcode::BL, Some(target)) => Flow::Call(target),
        (Opcode::B, Some(target)) => Flow::Jump(target),
        (Opcode::Bcc(_) | Opcode::CBZ | Opcode::CBNZ | Opcode::TBZ | Opcode::TBNZ, Some(target)) => {
            Flow::Branch(target)
        }
        (Opcode::BR, _) => Flow::Computed,
        (Opcode::BLR | Opcode::RET | Opcode::ERET | Opcode::BRK | Opcode::UDF, _) => Flow::Elsewhere,
        _ => Flow::Next,
    }
}

/// What `arm_probe_decode_insn` would decide. `nop` and `stp` are simulated by some kernels only and count as stepped.
fn execution(decoded: &yaxpeax_arm::armv8::a64::Instruction) -> Execution {
    let literal = decoded.operands.iter().any(|operand| matches!(operand, Operand::PCOffset(_)));
    match decoded.opcode {
        Opcode::B
        | Opcode::BL
        | Opcode::Bcc(_)
        | Opcode::CBZ
        | Opcode::CBNZ
        | Opcode::TBZ
        | Opcode::TBNZ
        | Opcode::BR
        | Opcode::BLR
        | Opcode::RET
        | Opcode::ADR
        | Opcode::ADRP => Execution::Emulated,
        // Kernels before 6.12 take a probe on these, read the user's address as their own when it is hit, and oops
        // (seen on 5.10); later ones refuse it: "arm64: probes: Remove broken LDR (literal) uprobe support".
        _ if literal => Execution::Rejected,
        // aarch64_insn_is_steppable: traps, system registers, exclusive accesses.
        Opcode::SVC
        | Opcode::HVC
        | Opcode::SMC
        | Opcode::BRK
        | Opcode::HLT
        | Opcode::ERET
        | Opcode::UDF
        | Opcode::MSR
        | Opcode::LDXR
        | Opcode::LDAXR
        | Opcode::STXR
        | Opcode::STLXR => Execution::Rejected,
        _ => Execution::SingleStepped,
    }
}

pub(super) fn text(code: &[u8]) -> String {
    code.get(..INSTRUCTION_BYTES).and_then(decode_one).map_or_else(|| "?".to_owned(), |decoded| decoded.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(word: u32) -> Instruction {
        decode(Pc(0x1000), &word.to_le_bytes())[0]
    }

    #[test]
    fn branches_are_emulated_and_know_their_target() {
        assert_eq!(one(0x9400_0004).flow, Flow::Call(Pc(0x1010)), "bl +16");
        assert_eq!(one(0x17ff_ffff).flow, Flow::Jump(Pc(0xffc)), "b -4");
        assert_eq!(one(0x5400_0049).flow, Flow::Branch(Pc(0x1008)), "b.ls +8");
        for (name, word) in [
            ("bl", 0x9400_0004),
            ("b", 0x1400_0001),
            ("b.ls", 0x5400_0049),
            ("cbz", 0xb400_0041),
            ("tbnz", 0x3700_0042),
            ("ret", 0xd65f_03c0),
            ("adrp", 0x9000_0000),
        ] {
            assert_eq!(one(word).execution, Execution::Emulated, "{name}");
        }
    }

    #[test]
    fn others_are_single_stepped_or_rejected() {
        for (name, word, expected) in [
            ("str x30,[sp,#-48]!", 0xf81d_0ffe, Execution::SingleStepped),
            ("cmp sp,x16", 0xeb30_63ff, Execution::SingleStepped),
            ("ldr x16,[x28,#16]", 0xf940_0b90, Execution::SingleStepped),
            ("ldr x0,literal", 0x5800_0040, Execution::Rejected),
            ("ldr w0,literal", 0x1800_0040, Execution::Rejected),
            ("ldrsw x0,literal", 0x9800_0040, Execution::Rejected),
            ("ldr d0,literal", 0x5c00_0040, Execution::Rejected),
            ("prfm literal", 0xd800_0040, Execution::Rejected),
            ("ldaxr", 0x885f_fc01, Execution::Rejected),
            ("svc", 0xd400_0001, Execution::Rejected),
            ("brk", 0xd420_0000, Execution::Rejected),
        ] {
            assert_eq!(one(word).execution, expected, "{name}");
        }
    }
}
