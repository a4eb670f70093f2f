//! A function's machine code, as far as it tells what is called and whose address is taken.
//!
//! In: code bytes and where they lie. Out: [`Step`]s in the order of the code. Pure; knows no functions.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, MemorySize, Mnemonic, OpKind, Register};

use crate::binary::Arch;
use crate::units::Pc;

/// One instruction that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A call of this address; `None` for one that is computed.
    Call(Option<Pc>),
    /// This address is taken.
    Takes(Pc),
    /// A byte is stored in the stack frame, as where a `defer` statement notes that it was passed.
    StoresByte,
}

/// The steps of the code at `start`, each with its place.
pub(super) fn steps(arch: Arch, start: Pc, code: &[u8]) -> Vec<(Pc, Step)> {
    match arch {
        Arch::Amd64 => amd64(start, code),
        Arch::Arm64 => arm64(start, code),
    }
}

fn amd64(start: Pc, code: &[u8]) -> Vec<(Pc, Step)> {
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::with_ip(64, code, start.0, DecoderOptions::NONE);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let stack = matches!(instruction.memory_base(), Register::RSP | Register::RBP);
        let step = match instruction.flow_control() {
            FlowControl::Call => Some(Step::Call(Some(Pc(instruction.near_branch_target())))),
            FlowControl::IndirectCall => Some(Step::Call(None)),
            _ if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() => {
                Some(Step::Takes(Pc(instruction.ip_rel_memory_address())))
            }
            _ if instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Memory
                && stack
                && matches!(instruction.memory_size(), MemorySize::UInt8 | MemorySize::Int8) =>
            {
                Some(Step::StoresByte)
            }
            _ => None,
        };
        found.extend(step.map(|step| (Pc(instruction.ip()), step)));
    }
    found
}

/// Encodings: Arm Architecture Reference Manual, C4.1.
fn arm64(start: Pc, code: &[u8]) -> Vec<(Pc, Step)> {
    let mut found = Vec::new();
    // The pages that ADRP has put in registers.
    let mut pages: [Option<u64>; 32] = [None; 32];
    for (i, word) in code.chunks_exact(4).enumerate() {
        let Ok(word) = word.try_into().map(u32::from_le_bytes) else { continue };
        let pc = start.0.wrapping_add(4 * i as u64);
        let register = |low: u32| (word >> low & 31) as usize;
        let signed = |value: u64, bits: u32| ((value << (64 - bits)) as i64 >> (64 - bits)) as u64;
        if word & 0xFC00_0000 == 0x9400_0000 {
            let offset = signed(u64::from(word & 0x03FF_FFFF), 26).wrapping_mul(4);
            found.push((Pc(pc), Step::Call(Some(Pc(pc.wrapping_add(offset))))));
            pages = [None; 32];
        } else if word & 0xFFFF_FC1F == 0xD63F_0000 {
            found.push((Pc(pc), Step::Call(None)));
            pages = [None; 32];
        } else if word & 0x9F00_0000 == 0x9000_0000 {
            let page = u64::from(word >> 5 & 0x7_FFFF) << 2 | u64::from(word >> 29 & 3);
            if let Some(slot) = pages.get_mut(register(0)) {
                *slot = Some((pc & !0xFFF).wrapping_add(signed(page, 21).wrapping_mul(4096)));
            }
        } else if word & 0xFFC0_0000 == 0x9100_0000 {
            let page = pages.get(register(5)).copied().flatten();
            if let Some(page) = page {
                found.push((Pc(pc), Step::Takes(Pc(page.wrapping_add(u64::from(word >> 10 & 0xFFF))))));
            }
        } else if word & 0xFFC0_0000 == 0x3900_0000 && register(5) == 31 {
            found.push((Pc(pc), Step::StoresByte));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amd64_calls_addresses_and_byte_stores() {
        // lea rcx,[rip+0x10]; mov [rsp+0x18],rcx; mov byte ptr [rsp+0xf],1; call +0; call [rdx]
        let code = [
            0x48, 0x8d, 0x0d, 0x10, 0, 0, 0, 0x48, 0x89, 0x4c, 0x24, 0x18, 0xc6, 0x44, 0x24, 0x0f, 0x01, 0xe8, 0, 0, 0,
            0, 0xff, 0x12,
        ];
        let found: Vec<Step> = steps(Arch::Amd64, Pc(0x1000), &code).into_iter().map(|(_, step)| step).collect();
        let call = Step::Call(Some(Pc(0x1016)));
        assert_eq!(found, [Step::Takes(Pc(0x1017)), Step::StoresByte, call, Step::Call(None)]);
    }

    #[test]
    fn arm64_calls_addresses_and_byte_stores() {
        // adrp x0, 0x2000; add x0, x0, #0x40; strb w1, [sp, #15]; bl -8; blr x1
        let code: Vec<u8> = [0xB000_0000_u32, 0x9101_0000, 0x3900_3FE1, 0x97FF_FFFE, 0xD63F_0020]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let found: Vec<Step> = steps(Arch::Arm64, Pc(0x1000), &code).into_iter().map(|(_, step)| step).collect();
        let call = Step::Call(Some(Pc(0x1004)));
        assert_eq!(found, [Step::Takes(Pc(0x2040)), Step::StoresByte, call, Step::Call(None)]);
    }

    #[test]
    fn what_is_no_code_is_passed_over() {
        let bytes: Vec<u8> = (0..4096_u32).map(|i| ((i * 7919) >> 3) as u8).collect();
        steps(Arch::Amd64, Pc(u64::MAX - 100), &bytes);
        steps(Arch::Arm64, Pc(u64::MAX - 100), &bytes);
    }
}
