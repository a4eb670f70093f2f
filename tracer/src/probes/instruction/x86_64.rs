//! x86_64, decoded by iced-x86.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, GasFormatter, InstructionInfoFactory, OpAccess, Register,
};

use super::{Execution, Flow, Instruction};
use crate::units::Pc;

pub(super) fn decode(entry: Pc, code: &[u8]) -> Vec<Instruction> {
    let mut info = InstructionInfoFactory::new();
    let mut decoder = Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE);
    let mut instructions = Vec::new();
    while decoder.can_decode() {
        let decoded = decoder.decode();
        if decoded.is_invalid() {
            break;
        }
        let start = (decoded.ip() - entry.0) as usize;
        let bytes = code.get(start..start + decoded.len()).unwrap_or_default();
        instructions.push(Instruction {
            pc: Pc(decoded.ip()),
            len: decoded.len() as u8,
            flow: flow(&decoded),
            execution: execution(&decoded, bytes),
            is_nop5: bytes == NOP5,
            keeps_first_register: info.info(&decoded).used_registers().iter().all(|used| {
                used.register().full_register() != Register::RAX || matches!(used.access(), OpAccess::Read)
            }),
        });
    }
    instructions
}

fn flow(decoded: &iced_x86::Instruction) -> Flow {
    let target = Pc(decoded.near_branch_target());
    match decoded.flow_control() {
        FlowControl::Next => Flow::Next,
        FlowControl::Call => Flow::Call(target),
        FlowControl::UnconditionalBranch => Flow::Jump(target),
        FlowControl::ConditionalBranch => Flow::Branch(target),
        FlowControl::IndirectBranch => Flow::Computed,
        FlowControl::IndirectCall
        | FlowControl::Return
        | FlowControl::Interrupt
        | FlowControl::XbeginXabortXend
        | FlowControl::Exception => Flow::Elsewhere,
    }
}

/// The one five-byte nop that the kernel looks for (`x86_nops[5]`), which is the one that Go's assembler emits.
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

/// What `arch_uprobe_analyze_insn` would decide.
fn execution(decoded: &iced_x86::Instruction, bytes: &[u8]) -> Execution {
    // is_prefix_bad and the tables of good instructions: no lock, no segment override of the old kind, no traps.
    const SEGMENT_OVERRIDES: [u8; 4] = [0x26, 0x2e, 0x36, 0x3e];
    if decoded.has_lock_prefix()
        || bytes.first().is_some_and(|first| SEGMENT_OVERRIDES.contains(first))
        || decoded.is_privileged()
        || matches!(decoded.flow_control(), FlowControl::Interrupt | FlowControl::Exception)
    {
        return Execution::Rejected;
    }
    // A branch with an operand-size prefix is not emulated: its meaning differs between makers of processors.
    if bytes.first() == Some(&0x66) {
        return Execution::SingleStepped;
    }
    match decoded.code() {
        Code::Nopd | Code::Nopq | Code::Push_r64 | Code::Jmp_rel8_64 | Code::Jmp_rel32_64 | Code::Call_rel32_64 => {
            Execution::Emulated
        }
        code if code.is_jcc_short_or_near() => Execution::Emulated,
        _ => Execution::SingleStepped,
    }
}

pub(super) fn text(pc: Pc, code: &[u8]) -> String {
    let mut decoder = Decoder::with_ip(64, code, pc.0, DecoderOptions::NONE);
    let mut text = String::new();
    GasFormatter::new().format(&decoder.decode(), &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(code: &[u8]) -> Instruction {
        decode(Pc(0x1000), code)[0]
    }

    #[test]
    fn emulated_are_the_instructions_that_the_kernel_emulates() {
        for (name, code) in [
            ("push %rbp", &[0x55][..]),
            ("push %r12", &[0x41, 0x54]),
            ("nop", &[0x90]),
            ("jmp short", &[0xeb, 0x02]),
            ("jmp near", &[0xe9, 0, 0, 0, 0]),
            ("jbe short", &[0x76, 0x02]),
            ("jbe near", &[0x0f, 0x86, 0, 0, 0, 0]),
            ("call rel32", &[0xe8, 0, 0, 0, 0]),
        ] {
            assert_eq!(one(code).execution, Execution::Emulated, "{name}");
        }
    }

    #[test]
    fn others_are_single_stepped_or_rejected() {
        for (name, code, expected) in [
            ("cmp 0x10(%r14),%rsp", &[0x49, 0x3b, 0x66, 0x10][..], Execution::SingleStepped),
            ("mov %rsp,%rbp", &[0x48, 0x89, 0xe5], Execution::SingleStepped),
            ("nopl 0(%rax)", &[0x0f, 0x1f, 0x40, 0x00], Execution::SingleStepped),
            ("data16 nop", &[0x66, 0x90], Execution::SingleStepped),
            ("ret", &[0xc3], Execution::SingleStepped),
            ("lock cmpxchg %ecx,(%rdx)", &[0xf0, 0x0f, 0xb1, 0x0a], Execution::Rejected),
            ("int3", &[0xcc], Execution::Rejected),
            ("hlt", &[0xf4], Execution::Rejected),
        ] {
            assert_eq!(one(code).execution, expected, "{name}");
        }
    }

    #[test]
    fn a_call_knows_its_target_and_what_it_may_overwrite() {
        let call = one(&[0xe8, 0x10, 0, 0, 0]);
        assert_eq!(call.flow, Flow::Call(Pc(0x1015)));
        assert!(one(&[0x48, 0x89, 0x44, 0x24, 0x18]).keeps_first_register, "mov %rax,0x18(%rsp)");
        assert!(!one(&[0x31, 0xc0]).keeps_first_register, "xor %eax,%eax");
    }
}
