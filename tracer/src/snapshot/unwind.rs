//! From the registers of a stopped goroutine to the return addresses on its stack.
//!
//! In: registers, words of the stack, and a [`Rule`] per address. Out: program counters, innermost first, and why the walk
//! ended. Pure: knows neither process nor names.
//!
//! The rules are Go's own: pclntab says for each instruction how far SP lies below the frame's top (pcsp). The runtime's
//! tracebacks and its collector live by it, so it is exact for every Go function, assembly and leaf functions included,
//! where a chain of frame pointers skips the caller of whatever set up no frame. Frame pointers serve only to get out of an
//! innermost frame that pclntab does not know.
//!
//! After the runtime's own unwinder:
//! - since Go 1.21: <https://github.com/golang/go/blob/go1.27.3/src/runtime/traceback.go#L208-L520>
//! - before, with the same rules: `gentraceback`,
//!   <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go#L74-L460>

use crate::binary::Arch;

/// Physical frames walked at most: above what a stack of 1 GiB, Go's bound, holds of ordinary frames.
const FRAME_LIMIT: usize = 1 << 22;
/// Unknown innermost frames that the chain of frame pointers may lead out of.
const FRAME_POINTER_LIMIT: usize = 64;
/// The bits of an arm64 return address that are address; above them stands the pointer-authentication code.
const ARM64_ADDRESS: u64 = (1 << 48) - 1;

/// What the function table says of one program counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// How far SP lies below its value at the function's entry, in bytes.
    pub(crate) sp_delta: i32,
    /// `funcFlag_TOPFRAME`: nothing called this.
    pub(crate) top: bool,
    /// `funcFlag_SPWRITE`, unless the runtime unwinds through it anyway (`cgocallback`): it sets SP by other means.
    pub(crate) writes_sp: bool,
    /// A call that a signal handler inserted (`sigpanic`, `asyncPreempt`, `debugCallV2`): its caller was interrupted.
    pub(crate) injected: bool,
}

/// The rules for all program counters.
pub(crate) trait Rules {
    /// The rule at `pc`, an address in the target; `None` outside Go's functions.
    fn rule(&mut self, pc: u64) -> Option<Rule>;
}

/// The words of a stack.
pub(crate) trait StackWords {
    /// The word at `address`; `None` outside the stack.
    fn word(&mut self, address: u64) -> Option<u64>;
}

/// Where a goroutine was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    /// The link register; 0 where there is none.
    pub(crate) lr: u64,
    /// The frame pointer; 0 where not known.
    pub(crate) bp: u64,
    /// These were saved at the entry of a system call.
    pub(crate) syscall: bool,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StackEnd {
    /// At a function that nothing calls (`runtime.goexit`, `runtime.mstart`, ...): the stack is whole.
    Top,
    /// At a return address of zero.
    Zero,
    /// At a function that switches stacks, as Go's own traceback does.
    SwitchesStack,
    /// At a return address outside Go's functions.
    Unknown,
    /// At the end of the goroutine's stack, or at memory that could not be read: the stack changed, or is corrupt.
    OutOfStack,
    /// At a frame that is its own caller, or at the bound on frames: the stack changed, or is corrupt.
    Endless,
}

impl StackEnd {
    /// Whether the outermost frames are there.
    #[must_use]
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Top | Self::Zero | Self::SwitchesStack)
    }
}

/// Walks a stack and gives every physical frame to `take`: its program counter, and the address at which it ends (`frame.fp`
/// of Go's unwinder).
pub(crate) fn walk(
    mut at: Registers,
    arch: Arch,
    stack: &mut impl StackWords,
    rules: &mut impl Rules,
    mut take: impl FnMut(u64, u64),
) -> StackEnd {
    let uses_lr = arch == Arch::Arm64;
    let address = |word: u64| if uses_lr { word & ARM64_ADDRESS } else { word };
    if !uses_lr {
        at.lr = 0;
    }
    if at.pc == 0 {
        // A call of a nil function: begin in the caller.
        let Some(word) = stack.word(at.sp) else { return StackEnd::OutOfStack };
        at.pc = address(word);
        if uses_lr { at.lr = 0 } else { at.sp = at.sp.wrapping_add(8) }
    }
    let Some(mut rule) = known(&mut at, uses_lr, stack, rules) else { return StackEnd::Unknown };
    let mut innermost = true;
    for _ in 0..FRAME_LIMIT {
        let fp = at.sp.wrapping_add_signed(i64::from(rule.sp_delta)).wrapping_add(if uses_lr { 0 } else { 8 });
        take(at.pc, fp);
        if rule.top {
            return StackEnd::Top;
        }
        if rule.writes_sp && !(innermost && at.syscall) {
            return StackEnd::SwitchesStack;
        }
        let mut lr = at.lr;
        if uses_lr {
            if (innermost && at.sp < fp) || lr == 0 {
                let Some(word) = stack.word(at.sp) else { return StackEnd::OutOfStack };
                lr = word;
            }
        } else {
            let Some(word) = stack.word(fp.wrapping_sub(8)) else { return StackEnd::OutOfStack };
            lr = word;
        }
        lr = address(lr);
        if lr == 0 {
            return StackEnd::Zero;
        }
        let Some(mut next) = rules.rule(lr) else { return StackEnd::Unknown };
        // Stacks are walked upwards. A frame of no size is real on arm64 alone, for a leaf that returns by its register.
        if fp < at.sp || (fp == at.sp && (lr == at.pc || at.lr == 0)) {
            return StackEnd::Endless;
        }
        let injected = rule.injected;
        at = Registers { pc: lr, sp: fp, lr: 0, bp: 0, syscall: false };
        if uses_lr && injected {
            // The signal handler saved the link register in a frame of its own before it faked the call.
            let Some(word) = stack.word(at.sp) else { return StackEnd::OutOfStack };
            at.sp = at.sp.wrapping_add(16);
            if next.sp_delta == 0 {
                at.lr = address(word);
            }
        }
        std::mem::swap(&mut rule, &mut next);
        innermost = false;
    }
    StackEnd::Endless
}

/// The rule of the innermost frame, or of the first frame up the chain of frame pointers that has one.
fn known(at: &mut Registers, uses_lr: bool, stack: &mut impl StackWords, rules: &mut impl Rules) -> Option<Rule> {
    for _ in 0..FRAME_POINTER_LIMIT {
        if let Some(rule) = rules.rule(at.pc) {
            return Some(rule);
        }
        let bp = at.bp;
        if bp < at.sp {
            return None;
        }
        let (saved, pc) = (stack.word(bp)?, stack.word(bp.checked_add(8)?)?);
        // On amd64 the return address stands above the saved frame pointer, and the caller's SP behind it. On arm64 Go
        // keeps the pair below its SP.
        *at = Registers { pc, sp: bp.checked_add(16)?, lr: 0, bp: saved, syscall: false };
        if uses_lr {
            at.pc &= ARM64_ADDRESS;
        }
        if saved <= bp {
            at.bp = 0;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashbrown::HashMap;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Code(HashMap<u64, Rule>);

    impl Rules for Code {
        fn rule(&mut self, pc: u64) -> Option<Rule> {
            self.0.get(&pc).copied()
        }
    }

    struct Words(HashMap<u64, u64>);

    impl StackWords for Words {
        fn word(&mut self, address: u64) -> Option<u64> {
            self.0.get(&address).copied()
        }
    }

    const PLAIN: Rule = Rule { sp_delta: 16, top: false, writes_sp: false, injected: false };
    const TOP: Rule = Rule { sp_delta: 0, top: true, ..PLAIN };

    fn walked(at: Registers, arch: Arch, words: &[(u64, u64)], rules: &[(u64, Rule)]) -> (Vec<u64>, StackEnd) {
        let (mut words, mut code) = (Words(words.iter().copied().collect()), Code(rules.iter().copied().collect()));
        let mut pcs = Vec::new();
        let end = walk(at, arch, &mut words, &mut code, |pc, _| pcs.push(pc));
        (pcs, end)
    }

    fn at(pc: u64, sp: u64) -> Registers {
        Registers { pc, sp, ..Registers::default() }
    }

    #[test]
    fn amd64_return_addresses_stand_above_each_frame() {
        let words = [(0x1010, 20), (0x1028, 30)];
        let rules = [(10, PLAIN), (20, PLAIN), (30, TOP)];
        assert_eq!(walked(at(10, 0x1000), Arch::Amd64, &words, &rules), (vec![10, 20, 30], StackEnd::Top));
    }

    #[test]
    fn arm64_return_addresses_stand_below_each_frame_without_their_signature() {
        let words = [(0x1000, 20 | 0xabcd << 48), (0x1010, 30)];
        let rules = [(10, PLAIN), (20, PLAIN), (30, TOP)];
        assert_eq!(walked(at(10, 0x1000), Arch::Arm64, &words, &rules), (vec![10, 20, 30], StackEnd::Top));
        // A leaf without a frame returns by its register.
        let leaf = Rule { sp_delta: 0, ..PLAIN };
        let registers = Registers { lr: 20, ..at(10, 0x1000) };
        let words = [(0x1000, 30)];
        let rules = [(10, leaf), (20, PLAIN), (30, TOP)];
        assert_eq!(walked(registers, Arch::Arm64, &words, &rules), (vec![10, 20, 30], StackEnd::Top));
    }

    #[test]
    fn arm64_signal_handlers_leave_the_link_register_in_a_frame_of_their_own() {
        let injected = Rule { injected: true, ..PLAIN };
        let leaf = Rule { sp_delta: 0, ..PLAIN };
        let words = [(0x1000, 20), (0x1010, 30), (0x1020, 40)];
        let rules = [(10, injected), (20, leaf), (30, PLAIN), (40, TOP)];
        assert_eq!(walked(at(10, 0x1000), Arch::Arm64, &words, &rules), (vec![10, 20, 30, 40], StackEnd::Top));
    }

    #[test]
    fn a_call_of_nil_begins_in_its_caller() {
        let rules = [(20, TOP)];
        assert_eq!(walked(at(0, 0x1000), Arch::Amd64, &[(0x1000, 20)], &rules), (vec![20], StackEnd::Top));
    }

    #[test]
    fn frame_pointers_lead_out_of_foreign_code() {
        let registers = Registers { bp: 0x1010, ..at(999, 0x1000) };
        let words = [(0x1010, 0x1030), (0x1018, 998), (0x1030, 0), (0x1038, 20)];
        assert_eq!(walked(registers, Arch::Amd64, &words, &[(20, TOP)]), (vec![20], StackEnd::Top));
        assert_eq!(walked(at(999, 0x1000), Arch::Amd64, &words, &[(20, TOP)]), (vec![], StackEnd::Unknown));
    }

    #[test]
    fn what_switches_stacks_ends_the_walk_but_at_a_system_call() {
        let switches = Rule { writes_sp: true, ..PLAIN };
        let words = [(0x1010, 20)];
        let rules = [(10, switches), (20, TOP)];
        assert_eq!(walked(at(10, 0x1000), Arch::Amd64, &words, &rules), (vec![10], StackEnd::SwitchesStack));
        let registers = Registers { syscall: true, ..at(10, 0x1000) };
        assert_eq!(walked(registers, Arch::Amd64, &words, &rules), (vec![10, 20], StackEnd::Top));
    }

    #[test]
    fn a_frame_that_goes_nowhere_ends_the_walk() {
        let back = Rule { sp_delta: -8, ..PLAIN };
        assert_eq!(walked(at(10, 0x1000), Arch::Amd64, &[(0xff8, 10)], &[(10, back)]), (vec![10], StackEnd::Endless));
        let below = Rule { sp_delta: i32::MIN, ..PLAIN };
        let (_, end) = walked(at(10, 0x1000), Arch::Amd64, &[], &[(10, below)]);
        assert_eq!(end, StackEnd::OutOfStack);
    }

    proptest! {
        /// Whatever registers, stacks and rules say, the walk ends, within the frames that the stack has room for.
        #[test]
        fn always_ends(
            pc in 0..8_u64,
            sp in any::<u64>(),
            deltas in prop::collection::vec((-64..64_i32, any::<bool>(), any::<bool>()), 8),
            words in prop::collection::vec(0..9_u64, 64),
            arm in any::<bool>(),
        ) {
            let rules: Vec<(u64, Rule)> = deltas.iter().enumerate().map(|(pc, &(sp_delta, writes_sp, injected))| {
                (pc as u64, Rule { sp_delta: sp_delta * 8, top: false, writes_sp, injected })
            }).collect();
            let words: Vec<(u64, u64)> =
                words.iter().enumerate().map(|(i, &word)| (sp.wrapping_add(8 * i as u64), word)).collect();
            let arch = if arm { Arch::Arm64 } else { Arch::Amd64 };
            let registers = Registers { bp: sp, lr: pc, ..at(pc, sp) };
            let (pcs, _) = walked(registers, arch, &words, &rules);
            prop_assert!(pcs.len() <= 66, "{} frames on a stack of 64 words", pcs.len());
        }
    }
}
