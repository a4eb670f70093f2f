//! Where the runtime's own variables lie.
//!
//! In: a binary and its [`Layout`]. Out: [`Globals`]. By the symbol table where there is one. In a stripped program, by
//! evidence: each variable has witnesses, functions whose code must speak of it (of a struct: at the offset of a field
//! that the function uses). An address that all witnesses speak of, and no other, is the variable; where there are two, or
//! none, it is an error. `tests/binaries.rs` holds every answer against the symbols of the unstripped twin, for every
//! toolchain and form.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::layout::Field;
use super::references::references;
use super::structs::Layout;
use crate::binary::Binary;
use crate::units::Pc;

/// A variable of package runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variable {
    /// `allgs []*g`: every g there ever was. <https://github.com/golang/go/blob/go1.27.3/src/runtime/proc.go#L674-L698>
    Allgs,
    /// `allglen uintptr`: how many. Read it before [`Variable::Allgptr`], as the runtime does without its lock.
    Allglen,
    /// `allgptr **g`: the first of them.
    Allgptr,
    /// `allp []*p`: every processor.
    Allp,
    /// `allm *m`: the newest thread, the others by `m.alllink`.
    Allm,
    /// `sched schedt`.
    Sched,
    /// `gomaxprocs int32`.
    Gomaxprocs,
    /// `ncpu int32`; `numCPUStartup` from Go 1.25.
    Ncpu,
    /// `mheap_ mheap`.
    Mheap,
    /// `semtable semTable`.
    Semtable,
    /// `firstmoduledata moduledata`.
    Firstmoduledata,
    /// `memstats mstats`.
    Memstats,
    /// `gcController gcControllerState`.
    GcController,
    /// `work workType`: the collector's cycle.
    Work,
    /// `gcphase uint32`: 0 off, 1 marking, 2 mark termination.
    Gcphase,
    /// `allfin *finBlock`: all blocks of queued finalizers.
    Allfin,
    /// `gcCleanups cleanupQueue`, from Go 1.25.
    GcCleanups,
    /// `dbgvars []*dbgVar`: the settings of GODEBUG that the runtime itself reads. Looked for from Go 1.26 on.
    Dbgvars,
}

/// How an address was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The symbol table names it.
    Symbol,
    /// The code of the runtime's functions speaks of it.
    Code,
}

/// Why a variable was not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobalError {
    /// The function table lacks a function.
    #[error(
        "runtime.{variable} not found: there is no {function} to tell its place; keep the symbol table (without -ldflags=-s)"
    )]
    NoWitness {
        /// The variable's name.
        variable: &'static str,
        /// The function.
        function: &'static str,
    },
    /// No address fits, or several do.
    #[error(
        "runtime.{variable} not found: {candidates} addresses fit what the code says; keep the symbol table (without -ldflags=-s)"
    )]
    Undecided {
        /// The variable's name.
        variable: &'static str,
        /// How many fit.
        candidates: usize,
    },
    /// This Go version has no such variable.
    #[error("runtime.{variable} does not exist in Go 1.{minor}")]
    NotInVersion {
        /// The variable's name.
        variable: &'static str,
        /// The N of Go 1.N.
        minor: u16,
    },
}

impl Variable {
    /// All of them.
    pub const ALL: [Variable; 18] = [
        Variable::Sched,
        Variable::Mheap,
        Variable::Memstats,
        Variable::GcController,
        Variable::Work,
        Variable::Firstmoduledata,
        Variable::Allgs,
        Variable::Allglen,
        Variable::Allgptr,
        Variable::Allp,
        Variable::Allm,
        Variable::Gomaxprocs,
        Variable::Ncpu,
        Variable::Semtable,
        Variable::Gcphase,
        Variable::Allfin,
        Variable::GcCleanups,
        Variable::Dbgvars,
    ];

    /// Its name in Go 1.`minor`, without the package.
    #[must_use]
    pub fn name(self, minor: u16) -> &'static str {
        match self {
            Variable::Allgs => "allgs",
            Variable::Allglen => "allglen",
            Variable::Allgptr => "allgptr",
            Variable::Allp => "allp",
            Variable::Allm => "allm",
            Variable::Sched => "sched",
            Variable::Gomaxprocs => "gomaxprocs",
            Variable::Ncpu if minor >= 25 => "numCPUStartup",
            Variable::Ncpu => "ncpu",
            Variable::Mheap => "mheap_",
            Variable::Semtable => "semtable",
            Variable::Firstmoduledata => "firstmoduledata",
            Variable::Memstats => "memstats",
            Variable::GcController => "gcController",
            Variable::Work => "work",
            Variable::Gcphase => "gcphase",
            Variable::Allfin => "allfin",
            Variable::GcCleanups => "gcCleanups",
            Variable::Dbgvars => "dbgvars",
        }
    }
}

/// A function, and the offsets into the variable that its code must speak of.
struct Witness {
    function: &'static str,
    offsets: Vec<u32>,
}

/// What is known of a variable before the code is read.
struct Recipe {
    witnesses: Vec<Witness>,
    /// Functions that have nothing to do with it, and so clear what they speak of.
    alibis: &'static [&'static str],
    /// Which of the remaining addresses, in the order in which the first witness speaks of them: the only one, or one of two.
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Only,
    FirstOfAtMostTwo,
    FirstOfTwo,
    SecondOfTwo,
}

fn witness(function: &'static str, offsets: impl Into<Vec<u32>>) -> Witness {
    Witness { function, offsets: offsets.into() }
}

fn fields(function: &'static str, fields: &[Field]) -> Witness {
    Witness { function, offsets: fields.iter().map(|field| field.offset).collect() }
}

/// Who speaks of what; found by looking for the functions that do so in every toolchain's code, on both processors.
fn recipe(variable: Variable, layout: &Layout, minor: u16) -> Option<Recipe> {
    let only = |witnesses| Recipe { witnesses, alibis: &[], place: Place::Only };
    Some(match variable {
        Variable::Allgs => only(vec![witness("runtime.allgadd", [0, 8, 16]), witness("runtime.forEachG", [0, 8])]),
        // allgadd compares allgptr, then stores allglen; a reader loads allglen first.
        Variable::Allglen => Recipe {
            place: Place::FirstOfTwo,
            ..only(vec![witness("runtime.forEachGRace", [0]), witness("runtime.allgadd", [0])])
        },
        Variable::Allgptr => Recipe {
            place: Place::SecondOfTwo,
            ..only(vec![witness("runtime.forEachGRace", [0]), witness("runtime.allgadd", [0])])
        },
        Variable::Allp => only(vec![
            witness("runtime.procresize", [0, 8, 16]),
            witness("runtime.stopTheWorldWithSema", [0, 8]),
            witness("runtime.checkdead", [0, 8]),
            witness("runtime.retake", [0, 8]),
        ]),
        Variable::Allm => only(vec![
            witness("runtime.mcommoninit", [0]),
            witness("runtime.mexit", [0]),
            witness("runtime.schedtrace", [0]),
        ]),
        Variable::Sched => only(vec![
            fields("runtime.pidleget", &[layout.sched.pidle, layout.sched.npidle]),
            fields("runtime.mput", &[layout.sched.midle, layout.sched.nmidle]),
            fields("runtime.mReserveID", &[layout.sched.mnext]),
            fields("runtime.handoffp", &[layout.sched.gcwaiting]),
            fields("runtime.injectglist", &[layout.sched.runq_head]),
        ]),
        Variable::Gomaxprocs => only(vec![
            witness("runtime.procresize", [0]),
            witness("runtime.stopTheWorldWithSema", [0]),
            witness("runtime.startTheWorldWithSema", [0]),
            witness("runtime.gcBgMarkStartWorkers", [0]),
            witness("runtime.sysmon", [0]),
            witness("runtime.handoffp", [0]),
        ]),
        Variable::Ncpu => only(vec![
            witness("runtime.osinit", [0]),
            witness("runtime.schedinit", [0]),
            witness("runtime.lock2", [0]),
            witness("runtime.gcStart", [0]),
        ]),
        Variable::Mheap => only(vec![
            witness("runtime.mallocinit", [0]),
            witness("runtime.allocmcache", [0]),
            fields("runtime.findObject", &[layout.mheap.arenas]),
            fields("runtime.gcSweep", &[layout.mheap.sweepgen]),
            fields("runtime.finishsweep_m", &[layout.mheap.sweepgen]),
        ]),
        Variable::Semtable => Recipe {
            // On arm64 both ask whether the processor has atomic instructions; so does every status change.
            alibis: &["runtime.casgstatus", "runtime.wakep"],
            ..only(vec![witness("runtime.semacquire1", [0]), witness("runtime.semrelease1", [0])])
        },
        Variable::Memstats => only(vec![
            fields(
                "runtime.gcMarkTermination",
                &[layout.memstats.numgc, layout.memstats.pause_total_ns, layout.memstats.pause_ns],
            ),
            fields("runtime.gcTrigger.test", &[layout.memstats.last_gc_nanotime]),
        ]),
        Variable::GcController => only(vec![
            witness("runtime.gcinit", [0]),
            witness("runtime.gcControllerCommit", [0]),
            fields("runtime.gcStart", &[layout.gc_controller.heap_live]),
            fields("runtime.gcTrigger.test", &[layout.gc_controller.heap_live]),
        ]),
        Variable::Work => {
            let work = layout.work.as_ref()?;
            only(vec![
                fields("runtime.gcTrigger.test", &[work.cycles]),
                fields("runtime.gcMarkTermination", &[work.t_end, work.t_mark_term, work.pause_ns]),
                fields("runtime.gcStart", &[work.t_mark, work.t_sweep_term]),
            ])
        }
        Variable::Gcphase => only(vec![
            witness("runtime.stackpoolfree", [0]),
            witness("runtime.freeSomeWbufs", [0]),
            witness("runtime.gcTrigger.test", [0]),
            witness("runtime.gcMark", [0]),
        ]),
        // Since Go 1.25 markroot speaks of finptrmask too; queuefinalizer does so after allfin.
        Variable::Allfin => Recipe {
            alibis: &["runtime.casgstatus", "runtime.wakep"],
            place: Place::FirstOfAtMostTwo,
            ..only(vec![witness("runtime.queuefinalizer", [0]), witness("runtime.markroot", [0])])
        },
        Variable::GcCleanups => only(vec![
            fields("runtime.markroot", &[layout.cleanup_queue.as_ref()?.all]),
            witness("runtime.(*activeSweep).end", [0]),
            witness("runtime.findRunnable", [0]),
        ]),
        // Nothing in older versions' is of use here.
        Variable::Dbgvars if minor < 26 => return None,
        Variable::Dbgvars if minor < 27 => only(vec![witness("runtime.parsegodebug", [0, 8])]),
        // There it speaks of other slices too.
        Variable::Dbgvars => {
            only(vec![witness("runtime.parsegodebug", [0, 8]), witness("runtime.parseRuntimeDebugVars", [0, 8])])
        }
        Variable::Firstmoduledata => return None,
    })
}

/// The variables whose extent is known, and which therefore explain every address inside them.
fn extent(variable: Variable, layout: &Layout) -> u64 {
    u64::from(match variable {
        Variable::Sched => layout.sched.size,
        Variable::Mheap => layout.mheap.size,
        Variable::Memstats => layout.memstats.size,
        Variable::GcController => layout.gc_controller.size,
        Variable::Work => layout.work.as_ref().map_or(8, |work| work.size),
        Variable::Allgs | Variable::Allp | Variable::Dbgvars => 24,
        Variable::Allglen | Variable::Allgptr | Variable::Allm | Variable::Allfin => 8,
        Variable::Gomaxprocs | Variable::Ncpu | Variable::Gcphase => 4,
        Variable::Semtable => layout.sema_table.size,
        Variable::Firstmoduledata => layout.moduledata.size,
        Variable::GcCleanups => layout.cleanup_queue.as_ref().map_or(8, |queue| queue.size),
    })
}

/// A variable's address and how it was found.
pub type Located = (Pc, Evidence);

/// The addresses of the runtime's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    found: BTreeMap<Variable, Result<Located, GlobalError>>,
}

impl Globals {
    /// Finds all variables of `binary`, by symbol, else by code.
    #[must_use]
    pub fn of(binary: &Binary, layout: &Layout) -> Self {
        let minor = binary.version().minor();
        let names = Variable::ALL.map(|variable| format!("runtime.{}", variable.name(minor)));
        let names = std::array::from_fn(|i| names.get(i).map_or("", String::as_str));
        // A symbol table that cannot be read is as good as none.
        let symbols = binary.image().symbols::<{ Variable::ALL.len() }>(names).unwrap_or_default();
        let known = Variable::ALL.into_iter().zip(symbols);
        let known: BTreeMap<Variable, Pc> = known.filter_map(|(v, symbol)| Some((v, symbol?.pc))).collect();
        Self::find(binary, layout, &known)
    }

    /// Finds all variables of `binary` by its code alone, as if it were stripped.
    #[must_use]
    pub fn of_code(binary: &Binary, layout: &Layout) -> Self {
        Self::find(binary, layout, &BTreeMap::new())
    }

    /// Where `variable` lies.
    ///
    /// # Errors
    /// [`GlobalError`] where it was not found.
    pub fn get(&self, variable: Variable) -> Result<Located, GlobalError> {
        let unknown = GlobalError::Undecided { variable: variable.name(0), candidates: 0 };
        self.found.get(&variable).cloned().unwrap_or(Err(unknown))
    }

    /// The address of `variable`, however found; `None` where it was not.
    #[must_use]
    pub fn pc(&self, variable: Variable) -> Option<Pc> {
        self.get(variable).ok().map(|(pc, _)| pc)
    }

    fn find(binary: &Binary, layout: &Layout, symbols: &BTreeMap<Variable, Pc>) -> Self {
        let mut found = BTreeMap::new();
        let mut code = None;
        let minor = binary.version().minor();
        for variable in Variable::ALL {
            let located = match (variable, symbols.get(&variable)) {
                (Variable::Dbgvars, _) if minor < 26 => Err(GlobalError::NotInVersion { variable: "dbgvars", minor }),
                (_, Some(pc)) => Ok((*pc, Evidence::Symbol)),
                (Variable::Firstmoduledata, _) => Ok((binary.module().address, Evidence::Code)),
                _ => {
                    let code = code.get_or_insert_with(|| Spoken::of(binary, layout));
                    let pc = decide(variable, binary, layout, code, &found);
                    pc.map(|pc| (pc, Evidence::Code))
                }
            };
            found.insert(variable, located);
        }
        Self { found }
    }
}

/// Bytes of code read for one function and for all; the largest witness, findRunnable, has 5 KiB.
const FUNCTION_LIMIT: u64 = 1 << 20;
const CODE_LIMIT: u64 = 16 << 20;

/// What each witness speaks of: writable addresses, in the order of its code.
struct Spoken {
    by_function: BTreeMap<String, Vec<Pc>>,
}

impl Spoken {
    fn of(binary: &Binary, layout: &Layout) -> Self {
        let minor = binary.version().minor();
        let recipes: Vec<Recipe> =
            Variable::ALL.iter().filter_map(|variable| recipe(*variable, layout, minor)).collect();
        let witnesses =
            recipes.iter().flat_map(|r| r.witnesses.iter().map(|w| w.function).chain(r.alibis.iter().copied()));
        let wanted: BTreeSet<&str> = witnesses.collect();
        let mut by_function: BTreeMap<String, Vec<Pc>> = BTreeMap::new();
        let mut left = CODE_LIMIT;
        for function in binary.functions().iter() {
            // Closures (`runtime.gcStart.func1`) speak for the function they stand in.
            let name = function.name().split(".func").next().unwrap_or_default();
            if !wanted.contains(name) {
                continue;
            }
            let len = function.end().0 - function.entry().0;
            left = left.saturating_sub(len);
            if len > FUNCTION_LIMIT || left == 0 {
                continue;
            }
            // Code that cannot be read speaks of nothing, and the variable stays undecided.
            let code = binary.code(function.range()).unwrap_or_default();
            let spoken = references(binary.arch(), function.entry(), &code).into_iter();
            let writable = spoken.filter(|pc| binary.image().segment(*pc).is_some_and(|s| s.writable));
            by_function.entry(name.to_owned()).or_default().extend(writable);
        }
        Self { by_function }
    }
}

/// The one address that all witnesses speak of.
fn decide(
    variable: Variable,
    binary: &Binary,
    layout: &Layout,
    code: &Spoken,
    found: &BTreeMap<Variable, Result<Located, GlobalError>>,
) -> Result<Pc, GlobalError> {
    let minor = binary.version().minor();
    let name = variable.name(minor);
    let Some(recipe) = recipe(variable, layout, minor) else {
        return Err(GlobalError::NotInVersion { variable: name, minor });
    };
    let spoken = |function: &'static str| {
        let spoken = code.by_function.get(function).map(Vec::as_slice);
        spoken.ok_or(GlobalError::NoWitness { variable: name, function })
    };
    // A variable found earlier explains what is said of it.
    let explained = |pc: Pc| {
        let mut others = found.iter().filter_map(|(other, located)| Some((*other, located.as_ref().ok()?.0)));
        let pair = |other| recipe.place != Place::Only && matches!(other, Variable::Allglen | Variable::Allgptr);
        others.any(|(other, start)| pc >= start && pc.0 - start.0 < extent(other, layout) && !pair(other))
    };
    let mut candidates: Option<Vec<Pc>> = None;
    for witness in &recipe.witnesses {
        let spoken = spoken(witness.function)?;
        for offset in &witness.offsets {
            let bases = spoken.iter().map(|pc| Pc(pc.0.wrapping_sub(u64::from(*offset))));
            match &mut candidates {
                None => candidates = Some(bases.collect()),
                Some(candidates) => {
                    let bases: BTreeSet<Pc> = bases.collect();
                    candidates.retain(|candidate| bases.contains(candidate));
                }
            }
        }
    }
    let mut cleared: BTreeSet<Pc> = BTreeSet::new();
    for alibi in recipe.alibis {
        cleared.extend(spoken(alibi)?);
    }
    let mut left: Vec<Pc> = Vec::new();
    for candidate in candidates.unwrap_or_default() {
        if !left.contains(&candidate) && !cleared.contains(&candidate) && !explained(candidate) {
            left.push(candidate);
        }
    }
    match (recipe.place, left.as_slice()) {
        (Place::Only | Place::FirstOfAtMostTwo, [pc])
        | (Place::FirstOfTwo | Place::FirstOfAtMostTwo, [pc, _])
        | (Place::SecondOfTwo, [_, pc]) => Ok(*pc),
        _ => Err(GlobalError::Undecided { variable: name, candidates: left.len() }),
    }
}
