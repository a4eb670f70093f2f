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

/// Walks a stack and gives every physical frame's program counter to `take`.
pub(crate) fn walk(
    mut at: Registers,
    arch: Arch,
    stack: &mut impl StackWords,
    rules: &mut impl Rules,
    mut take: impl FnMut(u64),
) -> StackEnd {
    let uses_lr = arch == Arch::Arm64;
    let address = |word: u64| if uses_lr { word & ARM64_ADDRESS } else { word };
    if at.pc == 0 {
        // A call of a nil function: begin in the caller.
        let Some(word) = stack.word(at.sp) else { return StackEnd::OutOfStack };
        at.pc = address(word);
        if uses_lr { at.lr = 0 } else { at.sp = at.sp.wrapping_add(8) }
    }
    let Some(mut rule) = known(&mut at, uses_lr, stack, rules) else { return StackEnd::Unknown };
    let mut innermost = true;
    for _ in 0..FRAME_LIMIT {
        take(at.pc);
        let fp = at.sp.wrapping_add_signed(i64::from(rule.sp_delta)).wrapping_add(if uses_lr { 0 } else { 8 });
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
        // Stacks are walked upwards. A frame of no size is real on arm64 alone, and there once at most.
        if fp < at.sp || (fp == at.sp && (lr == at.pc || !innermost)) {
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
