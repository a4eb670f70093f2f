//! The choice of the instruction on which a probe stands.
//!
//! In: a probe of the [`catalogue`](super::catalogue) and the code of its function. Out: a [`Verdict`]: where it
//! stands, how the kernel executes that instruction and which kernel program goes there; or why it cannot stand
//! anywhere. Must not know processes, nor of the kernel more than what [`Nops`] tells.

use std::fmt;
use std::sync::LazyLock;

use serde::Serialize;

use super::catalogue::{Event, Place, Probe};
use super::features::Feature;
use super::instruction::{self, Execution, Flow, Instruction};
use crate::binary::{Arch, Binary, Function};
use crate::units::{FileOffset, Pc};

/// Where a probe stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// What it reports.
    pub event: Event,
    /// The runtime function.
    pub function: &'static str,
    /// The kernel program that reads the values there.
    pub program: &'static str,
    /// The instruction's address.
    pub pc: Pc,
    /// Its place in the file: what a uprobe is attached by.
    pub offset: FileOffset,
    /// Bytes from the function's entry.
    pub into_function: u64,
    /// The instruction, to read.
    pub instruction: String,
    /// How the kernel executes it.
    pub execution: Execution,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It can stand.
    Placed(Placement),
    /// This Go version has no such function; nothing is missing.
    NotApplicable {
        /// What it would report.
        event: Event,
        /// The function that is not there.
        function: &'static str,
    },
    /// It cannot stand: events of this kind will not be seen.
    Unplaceable {
        /// What it would report.
        event: Event,
        /// The function.
        function: &'static str,
        /// Whether tracing makes no sense without it.
        required: bool,
        /// Why, each place tried.
        reason: String,
    },
}

impl Verdict {
    /// The placement, if there is one.
    #[must_use]
    pub fn placement(&self) -> Option<&Placement> {
        match self {
            Verdict::Placed(placement) => Some(placement),
            Verdict::NotApplicable { .. } | Verdict::Unplaceable { .. } => None,
        }
    }
}

/// Why one place of a function cannot take a probe.
#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    NoStackCheck,
    NoCall(&'static str),
    SeveralCalls(&'static str, usize),
    Rejected(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NoStackCheck => f.write_str("its prologue is not one that Go compilers up to 1.27 emit"),
            Unfit::NoCall(callee) => write!(f, "it does not call {callee}"),
            Unfit::SeveralCalls(callee, count) => write!(f, "it calls {callee} {count} times"),
            Unfit::Rejected(instruction) => write!(f, "the kernel takes no probe on `{instruction}`"),
        }
    }
}

/// What the kernel makes of a probe on a five-byte nop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nops {
    /// A trap, as of any instruction.
    Trap,
    /// A call.
    Call,
}

impl Nops {
    /// Tried once, on a function of our own.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        static FOUND: LazyLock<Nops> =
            LazyLock::new(|| if Feature::NopCalls.find().is_yes() { Nops::Call } else { Nops::Trap });
        *FOUND
    }
}

/// Finds an instruction for `probe` in `binary`: the first of its places that the kernel emulates, else the first
/// that it takes at all. Where `nops` are called and one stands directly before such a place, that nop.
#[must_use]
pub fn place(binary: &Binary, probe: &'static Probe, nops: Nops) -> Verdict {
    let Probe { event, function, optional, .. } = *probe;
    let unplaceable = |reason| Verdict::Unplaceable { event, function, required: !optional, reason };
    let Some((entry, code)) = body(binary, function) else {
        return if optional {
            Verdict::NotApplicable { event, function }
        } else {
            unplaceable("the executable has no code of that name".to_owned())
        };
    };
    let arch = binary.arch();
    let instructions = instruction::decode(arch, entry, &code);
    let calls = |callee: Pc, name: &str| binary.functions().find(callee).is_some_and(|f| names(&f, callee, name));

    let mut unfit = Vec::new();
    let mut fit: Vec<(Instruction, &'static str)> = Vec::new();
    for &(place, program) in probe.places {
        match locate(&instructions, place, entry, calls) {
            Ok(found) if found.execution == Execution::Rejected => {
                unfit.push(Unfit::Rejected(text_at(arch, entry, &code, found.pc)).to_string());
            }
            Ok(found) => {
                let nop = if nops == Nops::Call { nop_before(&instructions, found) } else { None };
                fit.push((nop.unwrap_or(found), program));
            }
            Err(why) => unfit.push(why.to_string()),
        }
    }
    // min_by_key keeps the first of equals: the catalogue's order decides among equally dear places.
    let Some((found, program)) = fit.into_iter().min_by_key(|(found, _)| found.execution) else {
        return unplaceable(unfit.join("; "));
    };
    let Some(offset) = binary.file_offset(found.pc) else {
        return unplaceable(format!("no segment of the file holds {}", found.pc));
    };
    Verdict::Placed(Placement {
        event,
        function,
        program,
        pc: found.pc,
        offset,
        into_function: found.pc.0 - entry.0,
        instruction: named(binary, &found, text_at(arch, entry, &code, found.pc)),
        execution: found.execution,
    })
}

/// Where the anchor of an executable's probes stands: a uprobe that a running process does not come to, which stays when the
/// others go (why: `probes/uprobe.rs`). It is the begin of `runtime.throw`, which a program calls at most once, before the runtime
/// ends it: <https://github.com/golang/go/blob/go1.27.3/src/runtime/panic.go>, Go 1.18 to 1.27.
#[must_use]
pub fn anchor(binary: &Binary) -> Option<FileOffset> {
    let (entry, code) = body(binary, "runtime.throw")?;
    let first = *instruction::decode(binary.arch(), entry, &code).first()?;
    (first.execution != Execution::Rejected).then(|| binary.file_offset(first.pc)).flatten()
}

/// Whether `function`, called at `callee`, is the one meant by `name`: itself, or a trampoline to it, which the linker
/// puts between on arm64 where the distance is more than a `bl` can span.
fn names(function: &Function<'_>, callee: Pc, name: &str) -> bool {
    function.entry() == callee
        && function.name().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.contains("-tramp"))
}

/// The ABIInternal body of a runtime function: its entry and its bytes.
///
/// Functions that assembly calls appear twice under one name: the body, and an ABI0 wrapper that calls it. So of two,
/// the body is the one that the other calls.
fn body(binary: &Binary, name: &str) -> Option<(Pc, Vec<u8>)> {
    // A function of the runtime that the probes care for has some hundred instructions; the rest is not looked at.
    const LONGEST: u64 = 64 << 10;
    let found: Vec<(Pc, Vec<u8>)> = binary
        .functions()
        .by_name(name)
        .into_iter()
        .filter_map(|f| {
            let end = Pc(f.end().0.min(f.entry().0.saturating_add(LONGEST)));
            Some((f.entry(), binary.code(f.entry()..end).ok()?))
        })
        .collect();
    let reaches = |(entry, code): &(Pc, Vec<u8>), target: Pc| {
        instruction::decode(binary.arch(), *entry, code)
            .iter()
            .any(|i| matches!(i.flow, Flow::Call(to) | Flow::Jump(to) if to == target))
    };
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => many.iter().find(|body| many.iter().any(|other| other.0 != body.0 && reaches(other, body.0))).cloned(),
    }
}

/// The text of a call with the callee's name for its address.
fn named(binary: &Binary, instruction: &Instruction, text: String) -> String {
    let callee = match instruction.flow {
        Flow::Call(to) => binary.functions().find(to).filter(|function| function.entry() == to),
        _ => None,
    };
    match (callee, text.split_once(' ')) {
        (Some(callee), Some((mnemonic, _))) => format!("{mnemonic} {}", callee.name()),
        _ => text,
    }
}

fn text_at(arch: Arch, entry: Pc, code: &[u8], pc: Pc) -> String {
    instruction::text(arch, pc, code.get((pc.0 - entry.0) as usize..).unwrap_or_default())
}

fn locate(
    instructions: &[Instruction],
    place: Place,
    entry: Pc,
    calls: impl Fn(Pc, &str) -> bool,
) -> Result<Instruction, Unfit> {
    let the_call_of = |name: &'static str| {
        let found: Vec<usize> = instructions
            .iter()
            .enumerate()
            .filter(|(_, i)| matches!(i.flow, Flow::Call(to) if calls(to, name)))
            .map(|(index, _)| index)
            .collect();
        match found.as_slice() {
            [] => Err(Unfit::NoCall(name)),
            [one] => Ok(*one),
            many => Err(Unfit::SeveralCalls(name, many.len())),
        }
    };
    match place {
        Place::BehindStackCheck => behind_stack_check(instructions, entry).ok_or(Unfit::NoStackCheck),
        Place::CallOf(name) => {
            the_call_of(name).and_then(|at| instructions.get(at).copied().ok_or(Unfit::NoCall(name)))
        }
        Place::Behind(name) => {
            let behind = instructions.get(the_call_of(name)? + 1..).unwrap_or_default();
            let first = behind.first().copied().ok_or(Unfit::NoCall(name))?;
            // An emulated one further on will do as long as nothing on the way overwrites the result or leaves the way.
            let mut result_lives = true;
            let emulated = behind
                .iter()
                .take_while(|i| {
                    let reached = result_lives;
                    result_lives = i.keeps_first_register && i.flow == Flow::Next;
                    reached
                })
                .find(|i| i.execution == Execution::Emulated);
            Ok(emulated.copied().unwrap_or(first))
        }
    }
}

/// The five-byte nop directly before `place`, if every way to the one leads over the other: it changes nothing, so all that
/// is at hand there is at hand here.
fn nop_before(instructions: &[Instruction], place: Instruction) -> Option<Instruction> {
    let at = instructions.iter().position(|i| i.pc == place.pc)?;
    let nop = *instructions.get(at.checked_sub(1)?)?;
    let passes_by = |i: &Instruction| match i.flow {
        Flow::Jump(to) | Flow::Branch(to) | Flow::Call(to) => to == place.pc,
        // It could lead to wherever.
        Flow::Computed => true,
        Flow::Next | Flow::Elsewhere => false,
    };
    // A page's border in a nop: then the kernel does not replace it.
    let on_one_page = nop.pc.0 % SMALLEST_PAGE <= SMALLEST_PAGE - u64::from(nop.len);
    (nop.is_nop5 && on_one_page && !instructions.iter().any(passes_by))
        .then_some(Instruction { execution: Execution::Called, ..nop })
}

/// Of x86_64.
const SMALLEST_PAGE: u64 = 4096;

/// The instruction behind the stack check: the branch to the call of `morestack`, which is the first branch of the
/// function and leads to code that ends in a jump back to the entry.
fn behind_stack_check(instructions: &[Instruction], entry: Pc) -> Option<Instruction> {
    // The longest check, of a function with a huge frame, has eight instructions on x86_64 and ten on arm64.
    const LONGEST_CHECK: usize = 12;
    let (at, target) = instructions.iter().take(LONGEST_CHECK).enumerate().find_map(|(at, i)| match i.flow {
        Flow::Branch(target) => Some((at, target)),
        _ => None,
    })?;
    let start = instructions.iter().position(|i| i.pc == target)?;
    let back_to_entry = instructions.get(start..)?.iter().any(|i| i.flow == Flow::Jump(entry));
    let behind = *instructions.get(at + 1)?;
    back_to_entry.then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Pc = Pc(0x1000);
    /// `cmp 0x10(%r14),%rsp; jbe +6; push %rbp; call +0; pop %rbp... ; call morestack; jmp entry`, put together below.
    fn function(body: &[u8]) -> Vec<Instruction> {
        let mut code = vec![0x49, 0x3b, 0x66, 0x10, 0x76, body.len() as u8];
        code.extend_from_slice(body);
        code.extend_from_slice(&[0xe8, 0, 0, 0, 0]); // call morestack
        let back = -(code.len() as i32 + 2);
        code.extend_from_slice(&[0xeb, back as u8]); // jmp entry
        instruction::decode(Arch::Amd64, ENTRY, &code)
    }

    #[test]
    fn behind_the_stack_check_stands_the_push() {
        let found = locate(&function(&[0x55, 0x5d, 0xc3]), Place::BehindStackCheck, ENTRY, |_, _| false);
        let found = found.expect("a stack check");
        assert_eq!((found.pc, found.execution), (Pc(0x1006), Execution::Emulated));
    }

    #[test]
    fn a_first_branch_that_is_no_stack_check_is_not_taken_for_one() {
        // test %eax,%eax; je +1; nop; ret
        let code = [0x85, 0xc0, 0x74, 0x01, 0x90, 0xc3];
        let instructions = instruction::decode(Arch::Amd64, ENTRY, &code);
        assert_eq!(locate(&instructions, Place::BehindStackCheck, ENTRY, |_, _| false), Err(Unfit::NoStackCheck));
    }

    #[test]
    fn a_nop_before_the_place_is_taken_unless_a_jump_passes_it_by() {
        const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
        let call = [0xe8, 0, 0, 0, 0];
        let found = |code: &[u8], entry: Pc| {
            let instructions = instruction::decode(Arch::Amd64, entry, code);
            let place = *instructions.iter().find(|i| matches!(i.flow, Flow::Call(_))).expect("a call");
            nop_before(&instructions, place).map(|i| (i.pc, i.execution))
        };
        let code = [&NOP5[..], &call].concat();
        assert_eq!(found(&code, ENTRY), Some((ENTRY, Execution::Called)));
        // The same nop across the border of a page.
        assert_eq!(found(&code, Pc(0x1ffc)), None);
        assert_eq!(found(&code, Pc(0x1ffb)), Some((Pc(0x1ffb), Execution::Called)));
        // jmp to the call; an indirect jump; another nop.
        assert_eq!(found(&[&[0xeb, 0x05][..], &NOP5, &call].concat(), ENTRY), None);
        assert_eq!(found(&[&[0xff, 0xe0][..], &NOP5, &call].concat(), ENTRY), None);
        assert_eq!(found(&[&[0x0f, 0x1f, 0x40, 0x00][..], &call].concat(), ENTRY), None);
        // jmp to the nop.
        assert_eq!(found(&[&[0xeb, 0x00][..], &NOP5, &call].concat(), ENTRY), Some((Pc(0x1002), Execution::Called)));
        assert_eq!(found(&call, ENTRY), None);
    }

    #[test]
    fn a_call_must_be_the_only_one_of_its_callee() {
        let call = [0xe8, 0, 0, 0, 0];
        let twice = [call, call].concat();
        let any = |_: Pc, name: &str| name == "callee";
        let none = |_: Pc, _: &str| false;
        let place = Place::CallOf("callee");
        let one = instruction::decode(Arch::Amd64, ENTRY, &call);
        assert_eq!(locate(&one, place, ENTRY, any).map(|i| i.pc), Ok(ENTRY));
        assert_eq!(locate(&one, place, ENTRY, none), Err(Unfit::NoCall("callee")));
        let two = instruction::decode(Arch::Amd64, ENTRY, &twice);
        assert_eq!(locate(&two, place, ENTRY, any), Err(Unfit::SeveralCalls("callee", 2)));
    }

    #[test]
    fn behind_a_call_the_first_emulated_instruction_is_taken_while_the_result_lives() {
        let any = |_: Pc, _: &str| true;
        let place = Place::Behind("callee");
        // call; mov %rax,0x18(%rsp); jmp +0
        let code = [0xe8, 0, 0, 0, 0, 0x48, 0x89, 0x44, 0x24, 0x18, 0xeb, 0x00];
        let instructions = instruction::decode(Arch::Amd64, ENTRY, &code);
        assert_eq!(locate(&instructions, place, ENTRY, any).map(|i| i.pc), Ok(Pc(0x100a)));
        // call; xor %eax,%eax; jmp +0: the result is gone at the jump
        let code = [0xe8, 0, 0, 0, 0, 0x31, 0xc0, 0xeb, 0x00];
        let instructions = instruction::decode(Arch::Amd64, ENTRY, &code);
        assert_eq!(locate(&instructions, place, ENTRY, any).map(|i| i.pc), Ok(Pc(0x1005)));
    }
}
