//! Many cells (kernel x architecture x Go version), and the table of what was seen in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};

use super::cell::{Cell, Lack, Outcome, Payload};
use super::emulator::PROCESSORS;
use super::kernels::Kernel;
use super::{VmArgs, programs};
use crate::cross::Arch;
use crate::toolchains::GO_VERSIONS;
use crate::workspace;

/// What is run in a machine when nothing else is asked for: every command by one test or some, counts against the
/// program's own tally.
/// A test whose name begins with one of these is in it; new ones are one line. What it leaves out takes minutes in an
/// emulated machine, or asks nothing of the kernel.
pub(crate) const TESTS: &[&str] = &[
    "matrix::",
    "lifecycle::deepstack::",
    "lifecycle::coroutines::",
    "attach::while_busy::",
    "exec::over_itself::",
    "run::from_the_first_instruction::",
    "placements::",
    "dump::is_what_the_program_says::",
    "seed::",
    "detail::states::",
    "detail::states_of_coroutines::",
    "detail::lifecycle::",
    "record::counts::",
    "leaks::patterns::",
    "proof::agreement::",
    "top::once",
    "leaves_no_trace::",
    "agent::memory_high_of_its_cgroup",
];

/// Machines that lack something: the kernel, and what it is made to lack.
const LACKING: &[(Arch, Kernel, Lack)] =
    &[(Arch::X86_64, Kernel::V6_1, Lack::Lockdown), (Arch::X86_64, Kernel::UserMode, Lack::Uprobes)];

/// Runs the cells, as many at a time as there are processors for, and prints the table; the whole matrix is written to
/// docs/kernels.md.
pub(crate) fn run(args: &VmArgs) -> Result<()> {
    let mut planned = Vec::new();
    for arch in Arch::ALL {
        let payload = Arc::new(Payload::tests(arch)?);
        let versions = programs::build(arch, &args.go, args.short)?;
        planned.extend(cells(arch, &versions, args.short).into_iter().map(|cell| (cell, Arc::clone(&payload))));
    }
    let rows = run_all(planned, args);
    let text = render(&rows, args.filter.as_deref());
    print!("{text}");
    if !args.short {
        let path = workspace::root().join("docs/kernels.md");
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    let bad = rows.iter().filter(|(_, outcome)| !outcome.as_ref().is_ok_and(Outcome::green)).count();
    ensure!(bad == 0, "{bad} of {} cells are not green", rows.len());
    Ok(())
}

/// An architecture's cells, in the table's order.
fn cells(arch: Arch, versions: &[String], short: bool) -> Vec<Cell> {
    let kernels = if short { &[Kernel::V5_10, Kernel::V6_1] } else { Kernel::all(arch) };
    let mut cells = Vec::new();
    for go in versions {
        let cell = |kernel, lacks| Cell { arch, kernel, go: Some(go.clone()), lacks };
        cells.extend(kernels.iter().map(|&kernel| cell(kernel, None)));
        let newest = GO_VERSIONS.last() == Some(&go.as_str());
        let lacking = LACKING.iter().filter(|(lacking, ..)| newest && *lacking == arch);
        cells.extend(lacking.map(|&(_, kernel, lack)| cell(kernel, Some(lack))));
    }
    cells
}

/// Runs each cell once, saying how it ended when it ends; the rows are in the order of the cells.
fn run_all(planned: Vec<(Cell, Arc<Payload>)>, args: &VmArgs) -> Vec<Row> {
    // Two machines on the processors of one lose events and miss looks that one would not.
    let at_once = (thread::available_parallelism().map_or(1, NonZero::get) / PROCESSORS).max(1);
    let waiting = Mutex::new(planned.into_iter().enumerate());
    let (sender, ended) = mpsc::channel();
    let mut rows: Vec<(usize, Row)> = thread::scope(|scope| {
        for _ in 0..at_once {
            let (waiting, sender) = (&waiting, sender.clone());
            scope.spawn(move || {
                // A poisoned lock is another thread's panic: the scope hands that on.
                while let Some((index, (cell, payload))) = waiting.lock().ok().and_then(|mut waiting| waiting.next()) {
                    let last = if args.resume { cell.last_outcome().filter(Outcome::green) } else { None };
                    let outcome = last.map_or_else(|| cell.run(&payload, args, |_| ()), Ok);
                    match &outcome {
                        Ok(outcome) => {
                            let Outcome { results, took, commit, .. } = outcome;
                            eprintln!("{cell}: {results} in {} s, at {commit}", took.as_secs());
                        }
                        Err(error) => eprintln!("{cell}: {error:#}"),
                    }
                    if sender.send((index, (cell, outcome))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        ended.iter().collect()
    });
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

type Row = (Cell, Result<Outcome>);

fn render(rows: &[Row], filter: Option<&str>) -> String {
    let named = match filter {
        Some(filter) => format!("whose names have `{filter}` in them"),
        None => format!("whose names begin with `{}`", TESTS.join("`, `")),
    };
    let option = filter.map(|filter| format!(" --filter {filter}")).unwrap_or_default();
    let mut text = format!(
        "# Kernels\n\nWritten by `cargo xtask vm --matrix` from real runs; not to be edited.\n\n\
        Each cell is one virtual machine: a Debian kernel, the statically linked release `gotracer`, the end-to-end \
        tests {named}, and their Go programs of one Go version. It shows passed/failed/skipped. Both architectures are \
        emulated by QEMU; nothing here ran on arm64 hardware.\n\nOne cell again, with its console:\n\n    \
        cargo xtask vm --arch aarch64 --kernel 6.1 --go 1.27.3{option}\n"
    );
    for arch in Arch::ALL {
        let of_arch: Vec<&Row> = rows.iter().filter(|(cell, _)| cell.arch == arch && cell.lacks.is_none()).collect();
        if !of_arch.is_empty() {
            table(&mut text, arch, &of_arch);
        }
    }
    placements(&mut text, rows);
    let lacking: Vec<&Row> = rows.iter().filter(|(cell, _)| cell.lacks.is_some()).collect();
    if !lacking.is_empty() {
        text += "\n## Kernels that cannot trace\n\nThere `doctor` and every command that attaches must say why, in one \
            sentence, and `dump`, which attaches nothing, must work.\n\n";
    }
    for (cell, outcome) in lacking {
        let shown = outcome.as_ref().map_or_else(|_| "**no result**".to_owned(), Outcome::short);
        let _ = writeln!(text, "- {cell}: {shown}");
    }
    let mut commits: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in rows.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()) {
        *commits.entry(&outcome.commit).or_default() += 1;
    }
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut took = Duration::ZERO;
    for (cell, outcome) in rows {
        let mut note = |what: String| notes.entry(what).or_default().push(cell.to_string());
        match outcome {
            Ok(outcome) => {
                took += outcome.took;
                outcome.results.failed.iter().for_each(|name| note(format!("failed: `{name}`")));
                outcome.results.skipped.iter().for_each(|name| note(format!("skipped: {name}")));
            }
            Err(error) => note(format!("no result: {}", format!("{error:#}").lines().next().unwrap_or_default())),
        }
    }
    if !notes.is_empty() {
        text += "\n## Not passed\n\n";
        for (what, cells) in notes {
            let _ = writeln!(text, "- {what} ({})", shortened(&cells));
        }
    }
    let _ = writeln!(text, "\n{} machines, {} s in all.", rows.len(), took.as_secs());
    let commits: Vec<String> = commits.into_iter().map(|(commit, count)| format!("{count} at {commit}")).collect();
    if commits.len() > 1 {
        let _ = writeln!(text, "Not all were run of one commit (`--resume`): {}.", commits.join(", "));
    }
    text += include_str!("instructions.md");
    text
}

fn table(text: &mut String, arch: Arch, rows: &[&Row]) {
    let mut versions: Vec<&str> = Vec::new();
    let mut kernels: Vec<Kernel> = Vec::new();
    for (cell, _) in rows {
        let version = cell.go.as_deref().unwrap_or_default();
        if !versions.contains(&version) {
            versions.push(version);
        }
        if !kernels.contains(&cell.kernel) {
            kernels.push(cell.kernel);
        }
    }
    let columns: String = versions.iter().map(|version| format!(" Go {version} |")).collect();
    let _ = writeln!(text, "\n## {arch}\n\n| kernel | release |{columns}");
    let _ = writeln!(text, "| --- | --- |{}", " --- |".repeat(versions.len()));
    for kernel in kernels {
        let of_kernel: Vec<&&Row> = rows.iter().filter(|(cell, _)| cell.kernel == kernel).collect();
        let release = of_kernel.iter().find_map(|(_, outcome)| outcome.as_ref().ok()).map(|o| o.release.as_str());
        let _ = write!(text, "| {kernel} | {} |", release.unwrap_or("?"));
        for version in &versions {
            let cell = of_kernel.iter().find(|(cell, _)| cell.go.as_deref() == Some(version));
            let shown = match cell.map(|(_, outcome)| outcome) {
                Some(Ok(outcome)) => outcome.short(),
                Some(Err(_)) => "**no result**".to_owned(),
                None => "not run".to_owned(),
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
}

/// Where the probes stand, and what a hit costs there on each kernel.
fn placements(text: &mut String, rows: &[Row]) {
    /// Of one architecture and Go version: by place, the price on each kernel.
    type Prices<'a> = BTreeMap<&'a str, Vec<(Kernel, &'a str)>>;
    let mut tables: BTreeMap<String, Prices<'_>> = BTreeMap::new();
    for (cell, outcome) in rows {
        let (Ok(outcome), Some(go)) = (outcome, &cell.go) else { continue };
        for (place, price) in &outcome.results.placements {
            let table = tables.entry(format!("{}, Go {go}", cell.arch)).or_default();
            table.entry(place).or_default().push((cell.kernel, price));
        }
    }
    if !tables.is_empty() {
        *text += "\n## Where the probes stand\n\nThe instruction that each probe of a stripped program got, and what a trap on its \
            kind costs in these machines, beside one on an instruction that is single-stepped, as at a function's entry.\n";
    }
    for (name, table) in &tables {
        let mut kernels: Vec<Kernel> = table.values().flatten().map(|(kernel, _)| *kernel).collect();
        kernels.sort();
        kernels.dedup();
        let columns: String = kernels.iter().map(|kernel| format!(" {kernel} |")).collect();
        let _ = writeln!(text, "\n| {name} |{columns}\n| --- |{}", " --- |".repeat(kernels.len()));
        for (place, prices) in table {
            let price = |kernel: &Kernel| prices.iter().find(|(of, _)| of == kernel).map_or("", |(_, price)| price);
            let prices: String = kernels.iter().map(|kernel| format!(" {} |", price(kernel))).collect();
            let _ = writeln!(text, "| {place} |{prices}");
        }
    }
}

fn shortened(cells: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = cells.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    match cells.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::results::Results;
    use super::*;

    #[test]
    fn no_two_machines_write_to_the_same_file() {
        let versions: Vec<String> = GO_VERSIONS.iter().map(|&version| version.to_owned()).collect();
        let cells: Vec<Cell> = Arch::ALL.into_iter().flat_map(|arch| cells(arch, &versions, false)).collect();
        let names: BTreeSet<String> = cells.iter().map(Cell::file_name).collect();
        assert_eq!(names.len(), cells.len(), "{names:?}");
    }

    #[test]
    fn the_table_shows_every_cell_and_names_what_failed() {
        let cell = |kernel, go: &str| Cell { arch: Arch::Aarch64, kernel, go: Some(go.to_owned()), lacks: None };
        let outcome = |failed: &[&str]| {
            let failed = failed.iter().map(|name| (*name).to_owned()).collect();
            let results = Results {
                passed: 4,
                failed,
                skipped: vec!["cgo, no gcc".to_owned()],
                complete: true,
                placements: vec![("`gopark+76`: `bl mcall`".to_owned(), "0.27".to_owned())],
            };
            Ok(Outcome {
                results,
                status: 0,
                release: "6.1.0-9".to_owned(),
                took: Duration::from_secs(7),
                commit: "cafe845".to_owned(),
            })
        };
        let text = render(
            &[
                (cell(Kernel::V6_1, "1.26.6"), outcome(&[])),
                (cell(Kernel::V6_1, "1.27.3"), outcome(&["counts"])),
                (cell(Kernel::Newest, "1.26.6"), Err(anyhow::anyhow!("it hung"))),
            ],
            None,
        );
        assert!(text.contains("| 6.1 | 6.1.0-9 | 4/0/1 | **4/1/1** |"), "{text}");
        assert!(text.contains("| newest | ? | **no result** | not run |"), "{text}");
        assert!(text.contains("- failed: `counts` (aarch64, kernel 6.1, Go 1.27.3)"), "{text}");
        assert!(text.contains("3 machines, 14 s in all."), "{text}");
        assert!(
            text.contains("| aarch64, Go 1.26.6 | 6.1 |\n| --- | --- |\n| `gopark+76`: `bl mcall` | 0.27 |"),
            "{text}"
        );
    }
}
