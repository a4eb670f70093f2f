//! The facts of real binaries, by every toolchain and in every form, held against what Go's own tools and the programs
//! themselves say.
#![allow(clippy::unwrap_used)]

#[path = "binaries/build.rs"]
mod build;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use build::{Form, Program, VERSIONS, answer, forms, program, tool};
use gotracer::binary::{Arch, Binary};
use gotracer::go_runtime::{Evidence, GlobalError, Globals, Layout, LayoutSource, Variable, WaitReasons};
use gotracer::units::Pc;

const SAMPLE: &str = include_str!("binaries/sample.go");

/// Calls `test` with every program whose form passes `filter`.
fn each(filter: impl Fn(Form) -> bool, mut test: impl FnMut(&Program, &Binary)) {
    for version in VERSIONS {
        for form in forms().into_iter().filter(|form| filter(*form)) {
            if let Some(program) = program(version, form) {
                test(&program, &program.open());
            }
        }
    }
}

/// `count` addresses spread over Go's text.
fn addresses(binary: &Binary, count: u64) -> Vec<Pc> {
    let (start, end) = (binary.module().min_pc.0, binary.module().max_pc.0);
    // A linear congruence (Knuth's constants): the same addresses on every run.
    let next = |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    let quantum = if binary.arch() == Arch::Arm64 { 4 } else { 1 };
    let numbers = std::iter::successors(Some(7), next).skip(1).take(count as usize);
    numbers.map(|n| Pc(start + (n >> 16) % (end - start) / quantum * quantum)).collect()
}

#[test]
fn version_settings_and_segments() {
    each(
        |_| true,
        |program, binary| {
            let text = binary.version().text();
            assert!(text.starts_with(&format!("go{}", program.version)), "{program}: {text}");
            assert_eq!(binary.arch(), program.form.arch, "{program}");
            assert_eq!(binary.is_pie(), program.form.pie, "{program}");
            assert_eq!(binary.build_info().module, "example.com/sample", "{program}");
            let cgo = if program.form.cgo { "1" } else { "0" };
            assert_eq!(binary.build_info().setting("CGO_ENABLED"), Some(cgo), "{program}");
            assert!(binary.build_ids().go.is_some(), "{program}");
            let entry = binary.functions().by_name("runtime.gopark")[0].entry();
            let offset = binary.file_offset(entry).unwrap();
            assert_eq!(binary.image().pc_at(offset), Some(entry), "{program}");
            assert_eq!(binary.image().has_symbols(), !program.form.stripped, "{program}");
        },
    );
}

/// The functions that probes stand on are where the linker's own symbol table has them.
#[test]
fn functions_by_name_are_where_nm_says() {
    const NAMES: [&str; 9] = [
        "runtime.gopark",
        "runtime.newproc",
        "runtime.newproc1",
        "runtime.newproc.func1",
        "runtime.goexit1",
        "runtime.goexit0",
        "runtime.execute",
        "main.main",
        "main.outer",
    ];
    each(
        |form| !form.stripped,
        |program, binary| {
            let Some(nm) = tool("nm", program, "") else { return };
            let mut symbols: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
            for line in nm.lines() {
                let mut words = line.split_whitespace();
                let (Some(address), Some("T" | "t"), Some(name)) = (words.next(), words.next(), words.next()) else {
                    continue;
                };
                let name = name.strip_suffix(".abi0").unwrap_or(name);
                symbols.entry(name).or_default().insert(u64::from_str_radix(address, 16).unwrap());
            }
            for name in NAMES {
                let ours: BTreeSet<u64> = binary.functions().by_name(name).iter().map(|f| f.entry().0).collect();
                assert_eq!(Some(&ours), symbols.get(name), "{program}: {name}");
            }
            // Every function of the table has a symbol at its entry.
            let all: BTreeSet<u64> = symbols.values().flatten().copied().collect();
            let strangers: Vec<_> = binary.functions().iter().filter(|f| !all.contains(&f.entry().0)).collect();
            assert!(strangers.is_empty(), "{program}: {strangers:?}");
            assert!(binary.functions().len() > 1000, "{program}: {}", binary.functions().len());
        },
    );
}

/// Function, file and line of the innermost call at many addresses are what the running program's own runtime says.
#[test]
fn lines_are_what_the_program_says() {
    each(
        |form| form.is_ours(),
        |program, binary| {
            // The runtime looks one byte before what it is given, but never before an entry: leave the last bytes out.
            let mut pcs = addresses(binary, 800);
            pcs.retain(|pc| binary.functions().find(*pc).is_some_and(|f| pc.0 + 1 < f.end().0));
            let input: String = pcs.iter().map(|pc| format!("{:x}\n", pc.0)).collect();
            let outer = binary.functions().by_name("main.outer")[0].entry();
            let mut command = Command::new(&program.path);
            command.args(["symbolise", &format!("{:x}", outer.0)]);
            let answer = answer(command, &input);
            assert_eq!(answer.lines().count(), pcs.len(), "{program}");
            let mut inlined = 0;
            for (pc, line) in pcs.iter().zip(answer.lines()) {
                let frames = binary.functions().frames(*pc);
                let frame = frames.first().unwrap_or_else(|| panic!("{program}: nothing at {pc}"));
                // The runtime's name for "no line here": padding between functions.
                let file = if frame.file.is_empty() { "?" } else { frame.file };
                // Names of generic functions print without their shapes.
                let name = without_shapes(frame.function);
                // The name at offset 0 of the table is a name like any other, but the runtime takes it for none.
                let name = if line.starts_with('\t') { "" } else { &name };
                assert_eq!(format!("{name}\t{file}\t{}", frame.line), line, "{program} at {pc}");
                inlined += usize::from(frame.inlined);
            }
            assert!(inlined > 50, "{program}: only {inlined} addresses of inlined calls");
        },
    );
}

/// `main.f[go.shape.int]` prints as `main.f[...]`: runtime/funcNameForPrint does it since 1.21, the linker before.
fn without_shapes(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(open), Some(close)) if open < close => format!("{}[...]{}", &name[..open], &name[close + 1..]),
        _ => name.to_owned(),
    }
}

/// For a processor that is not ours, the same from `go tool addr2line`, which knows no inlined calls but their lines.
#[test]
fn lines_are_what_addr2line_says() {
    each(
        |form| !form.is_ours() && !form.stripped,
        |program, binary| {
            let pcs = addresses(binary, 400);
            let input: String = pcs.iter().map(|pc| format!("{:x}\n", pc.0)).collect();
            let Some(answer) = tool("addr2line", program, &input) else { return };
            let answers: Vec<&str> = answer.lines().collect();
            assert_eq!(answers.len(), 2 * pcs.len(), "{program}");
            for (pc, answer) in pcs.iter().zip(answers.chunks(2)) {
                let function = binary.functions().find(*pc).unwrap();
                assert_eq!(function.name(), answer[0], "{program} at {pc}");
                let (file, line) = function.line(*pc).unwrap_or(("?", 0));
                assert_eq!(format!("{file}:{line}"), answer[1], "{program} at {pc}");
            }
        },
    );
}

/// A call inlined into a call inlined into a function: all three, each with its own line, in every form.
#[test]
fn inlined_chains_are_told_apart() {
    let line = |mark: &str| 1 + SAMPLE.lines().position(|l| l.ends_with(&format!("// {mark}"))).unwrap() as u32;
    let wanted = [("main.inner", line("INNER")), ("main.middle", line("MIDDLE")), ("main.outer", line("OUTER"))];
    each(
        |_| true,
        |program, binary| {
            let outer = binary.functions().by_name("main.outer")[0];
            let chains: Vec<Vec<_>> = (outer.entry().0..outer.end().0)
                .map(|pc| outer.frames(Pc(pc)).iter().map(|f| (f.function, f.line)).collect())
                .collect();
            assert!(chains.iter().any(|chain| chain == &wanted), "{program}: {chains:?}");
            let start = 1 + SAMPLE.lines().position(|l| l.starts_with("func outer")).unwrap() as u32;
            let said = outer.start_line();
            assert!(said == Some(start) || said.is_none() && binary.version().minor() < 20, "{program}: {said:?}");
        },
    );
}

/// What the DWARF of a program says of the runtime is what the table says; a stripped one gets the table.
#[test]
fn layouts_from_dwarf_and_table_agree() {
    each(
        |_| true,
        |program, binary| {
            let layout = Layout::of(binary).unwrap_or_else(|error| panic!("{program}: {error}"));
            let table = Layout::of_table(binary.version(), binary.arch()).unwrap();
            let has_dwarf = layout.source == LayoutSource::Dwarf;
            assert_eq!(has_dwarf, !program.form.stripped, "{program}: {:?}", layout.source);
            // Structs of features the program does not use are not in its DWARF, and the table stands in.
            assert_eq!(Layout { source: table.source.clone(), ..layout }, table, "{program}");
        },
    );
}

#[test]
fn wait_reasons_of_symbols_and_table_agree() {
    each(
        |_| true,
        |program, binary| {
            let table = WaitReasons::of_table(binary.version()).unwrap();
            let symbols = WaitReasons::of_symbols(binary);
            assert_eq!(symbols.is_some(), !program.form.stripped, "{program}");
            assert!(symbols.is_none_or(|symbols| symbols == table), "{program}");
            assert_eq!(table.name(table.number("chan receive").unwrap()), Some("chan receive"), "{program}");
        },
    );
}

/// The stripped twin has the same functions at the same places; without section headers too.
#[test]
fn stripping_changes_nothing() {
    each(
        |form| form.stripped && !form.cgo,
        |program, binary| {
            let path = program.path.with_extension("headless");
            let mut bytes = std::fs::read(&program.path).unwrap();
            // e_shoff, and e_shentsize, e_shnum, e_shstrndx.
            bytes[40..48].fill(0);
            bytes[58..64].fill(0);
            std::fs::write(&path, bytes).unwrap();
            let headless = Binary::open(std::fs::File::open(&path).unwrap())
                .unwrap_or_else(|error| panic!("{program} without section headers: {error}"));
            std::fs::remove_file(&path).unwrap();
            assert_eq!(headless.module(), binary.module(), "{program}");
            assert_eq!(headless.build_info(), binary.build_info(), "{program}");
            let names = |b: &Binary| b.functions().iter().map(|f| (f.entry(), f.name().to_owned())).collect::<Vec<_>>();
            assert_eq!(names(&headless), names(binary), "{program}");
        },
    );
}

/// The runtime's variables as the code tells their places are where the symbols of the unstripped twin have them.
#[test]
fn variables_found_by_code_are_where_the_symbols_are() {
    let mut wrong = Vec::new();
    each(
        |form| !form.stripped,
        |program, binary| {
            let layout = Layout::of(binary).unwrap();
            let symbols = Globals::of(binary, &layout);
            let code = Globals::of_code(binary, &layout);
            for variable in Variable::ALL {
                let name = variable.name(binary.version().minor());
                match (binary.symbol(&format!("runtime.{name}")).unwrap(), symbols.get(variable), code.get(variable)) {
                    (Some(symbol), Ok((by_symbol, _)), Ok((by_code, _)))
                        if symbol.pc == by_symbol && by_symbol == by_code => {}
                    // Or it is there, and of no use.
                    (_, Err(GlobalError::NotInVersion { .. }), Err(GlobalError::NotInVersion { .. })) => {}
                    other => wrong.push(format!("{program}: {name}: {other:?}")),
                }
            }
        },
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And a stripped program gives all of them.
    each(
        |form| form.stripped,
        |program, binary| {
            let globals = Globals::of(binary, &Layout::of(binary).unwrap());
            for variable in Variable::ALL {
                let located = globals.get(variable);
                let absent = matches!(located, Err(GlobalError::NotInVersion { .. }));
                assert!(absent || matches!(located, Ok((_, Evidence::Code))), "{program}: {located:?}");
            }
        },
    );
}

/// A program of which every part may be wrong: wherever it is cut and whichever bytes are turned, an answer or an error comes
/// back soon.
#[test]
fn corrupted_copies_do_no_harm() {
    let form = Form { arch: Arch::Amd64, pie: true, cgo: false, stripped: false };
    let Some(program) = program(VERSIONS[VERSIONS.len() - 1], form) else { return };
    let whole = std::fs::read(&program.path).unwrap();
    let path = program.path.with_extension("corrupt");
    let (mut opened, mut refused) = (0, 0);
    let mut survive = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let started = Instant::now();
        refused += 1;
        if let Ok(binary) = Binary::open(std::fs::File::open(&path).unwrap()) {
            (opened, refused) = (opened + 1, refused - 1);
            for pc in addresses(&binary, 20) {
                let _ = binary.functions().frames(pc);
            }
            let _ = binary.functions().by_name("runtime.gopark");
            let _ = WaitReasons::of(&binary);
            if let Ok(layout) = Layout::of(&binary) {
                let _ = Globals::of_code(&binary, &layout);
            }
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{what} took {:?}", started.elapsed());
    };
    for cut in 0..40 {
        survive(&whole[..whole.len() * cut / 40], &format!("cut at {cut} fortieths"));
    }
    let mut random = 42_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 16) as usize
    };
    // The headers, where a byte changes everything, and then everywhere.
    for round in 0..120 {
        let mut bytes = whole.clone();
        let (reach, turned) = if round < 60 { (0x1000, 4) } else { (bytes.len(), 4000) };
        for _ in 0..turned {
            let at = next() % reach;
            bytes[at] = next() as u8;
        }
        survive(&bytes, &format!("round {round}"));
    }
    assert!(opened > 10 && refused > 40, "{opened} opened, {refused} refused: too few bytes turned, or too many");
    std::fs::remove_file(&path).unwrap();
}
