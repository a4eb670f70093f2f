//! Which addresses of data a function's machine code speaks of.
//!
//! In: code bytes and where they lie. Out: addresses. Pure; knows nothing of what is there.
//!
//! amd64 addresses data relative to RIP; arm64 by ADRP and an offset. Either may keep a struct's base in a register and reach
//! fields from there, so the bases held in registers are followed along the code as it stands. Jumps are not followed: what
//! comes out is evidence, to be weighed with that of other functions, never the last word.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};

use crate::binary::Arch;
use crate::units::Pc;

/// The addresses that the code at `start` reads, writes or takes, other than by jumps and calls; as they stand in the code,
/// repeated as often as they do there.
pub(crate) fn references(arch: Arch, start: Pc, code: &[u8]) -> Vec<Pc> {
    match arch {
        Arch::Amd64 => amd64(start, code),
        Arch::Arm64 => arm64(start, code),
    }
}

fn amd64(start: Pc, code: &[u8]) -> Vec<Pc> {
    let mut found = Vec::new();
    // Indexed by the number of the full register.
    let mut held: [Option<u64>; 16] = [None; 16];
    let slot = |register: Register| match register.full_register() {
        full if full.is_gpr64() => Some(full.number()),
        _ => None,
    };
    let mut infos = InstructionInfoFactory::new();
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::with_ip(64, code, start.0, DecoderOptions::NONE);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.code() == Code::INVALID {
            continue;
        }
        let target = if instruction.is_ip_rel_memory_operand() {
            Some(instruction.ip_rel_memory_address())
        } else {
            let base = slot(instruction.memory_base()).and_then(|i| *held.get(i)?);
            base.map(|base| base.wrapping_add(instruction.memory_displacement64()))
        };
        found.extend(target.map(Pc));
        if matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
            // Go's calling convention keeps no register.
            held = [None; 16];
            continue;
        }
        let written = infos.info(&instruction).used_registers().iter();
        let written = written.filter(|used| !matches!(used.access(), OpAccess::Read | OpAccess::CondRead));
        for used in written {
            if let Some(register) = slot(used.register()).and_then(|i| held.get_mut(i)) {
                *register = None;
            }
        }
        let is_address = instruction.mnemonic() == Mnemonic::Lea && instruction.memory_index() == Register::None;
        if is_address && let Some(register) = slot(instruction.op0_register()).and_then(|i| held.get_mut(i)) {
            *register = target;
        }
    }
    found
}

/// Decoded by hand: the forms that matter are a dozen, and every word is one instruction. Encodings: Arm Architecture
/// Reference Manual, C4.1.
fn arm64(start: Pc, code: &[u8]) -> Vec<Pc> {
    let mut found = Vec::new();
    let mut held: [Option<u64>; 32] = [None; 32];
    for (i, word) in code.chunks_exact(4).enumerate() {
        let Ok(word) = word.try_into().map(u32::from_le_bytes) else { continue };
        let pc = start.0.wrapping_add(4 * i as u64);
        let register = |low: u32| (word >> low & 31) as usize;
        let base = held.get(register(5)).copied().flatten();
        let (mut result, mut target) = (None, None);
        // Whether bits 0 to 4 name a register that is written.
        let mut writes = true;
        if word & 0x1f00_0000 == 0x1000_0000 {
            // ADR, ADRP: 21 bits, the low two apart.
            let immediate = sign_extend(u64::from(word >> 5 & 0x7_ffff) << 2 | u64::from(word >> 29 & 3), 21);
            let page = word >> 31 == 1;
            let from = if page { pc & !0xfff } else { pc };
            result = Some(from.wrapping_add(if page { immediate << 12 } else { immediate }));
            target = result.filter(|_| !page);
        } else if word & 0xff80_0000 == 0x9100_0000 {
            // ADD (immediate), 64 bits.
            let shift = if word >> 22 & 1 == 1 { 12 } else { 0 };
            result = base.map(|base| base.wrapping_add(u64::from(word >> 10 & 0xfff) << shift));
            target = result;
        } else if word & 0x3b00_0000 == 0x3900_0000 {
            // LDR, STR (unsigned immediate).
            let scale = if word >> 26 & 1 == 1 && word >> 23 & 1 == 1 { 4 } else { word >> 30 };
            target = base.map(|base| base.wrapping_add(u64::from(word >> 10 & 0xfff) << scale));
            writes = word >> 26 & 1 == 0 && word >> 22 & 3 != 0;
        } else if word & 0x3b20_0c00 == 0x3800_0000 {
            // LDUR, STUR.
            target = base.map(|base| base.wrapping_add(sign_extend(u64::from(word >> 12 & 0x1ff), 9)));
            writes = word >> 26 & 1 == 0 && word >> 22 & 3 != 0;
        } else if word & 0x3a00_0000 == 0x2800_0000 {
            // LDP, STP.
            let scale = if word >> 26 & 1 == 1 { 2 + (word >> 30) } else { 2 + (word >> 31) };
            let offset = sign_extend(u64::from(word >> 15 & 0x7f), 7) << scale;
            target = base.map(|base| base.wrapping_add(offset));
            found.extend(target.map(|first| Pc(first.wrapping_add(1 << scale))));
            writes = word >> 26 & 1 == 0 && word >> 22 & 1 == 1;
            if let Some(second) = held.get_mut(register(10)).filter(|_| writes) {
                *second = None;
            }
        } else if word & 0x3f00_0000 == 0x0800_0000 || word & 0x3b20_0000 == 0x3820_0000 {
            // Ordered, exclusive and atomic accesses, and those with an index register: the base itself.
            target = base;
        } else if word & 0xfc00_0000 == 0x9400_0000 || word & 0xffff_fc1f == 0xd63f_0000 {
            // BL, BLR.
            held = [None; 32];
            continue;
        } else if word & 0x7c00_0000 == 0x1400_0000 || word & 0x7e00_0000 == 0x3400_0000 {
            // B, CBZ, CBNZ.
            writes = false;
        }
        found.extend(target.map(Pc));
        if let Some(register) = held.get_mut(register(0)).filter(|_| writes) {
            *register = result;
        }
    }
    found
}

fn sign_extend(value: u64, bits: u32) -> u64 {
    ((value << (64 - bits)) as i64 >> (64 - bits)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(arch: Arch, code: &[u8]) -> Vec<u64> {
        references(arch, Pc(0x40_1000), code).into_iter().map(|pc| pc.0).collect()
    }

    #[test]
    fn amd64_relative_to_rip_and_through_a_register() {
        // mov rax, [rip+0x100]; lea rcx, [rip+0x200]; mov rdx, [rcx+0x10]; call +0; mov rdx, [rcx+0x18]
        let code = [
            0x48, 0x8b, 0x05, 0, 1, 0, 0, 0x48, 0x8d, 0x0d, 0, 2, 0, 0, 0x48, 0x8b, 0x51, 0x10, 0xe8, 0, 0, 0, 0, 0x48,
            0x8b, 0x51, 0x18,
        ];
        assert_eq!(targets(Arch::Amd64, &code), [0x40_1107, 0x40_120e, 0x40_121e]);
    }

    #[test]
    fn arm64_page_and_offset() {
        // adrp x27, +0x10 pages; ldr x0, [x27, #0x88]; add x1, x27, #0x100; ldr w2, [x1, #4]; bl +4; ldr x3, [x1]
        let words: [u32; 6] = [0x9000_009b, 0xf940_4760, 0x9104_0361, 0xb940_0422, 0x9400_0001, 0xf940_0023];
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(targets(Arch::Arm64, &code), [0x41_1088, 0x41_1100, 0x41_1104]);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut code = Vec::new();
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            code.push((state >> 56) as u8);
        }
        targets(Arch::Amd64, &code);
        targets(Arch::Arm64, &code);
    }
}
