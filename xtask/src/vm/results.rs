//! What the test executable said on the console: counts, and the names of what failed or was left out.

use std::fmt;

/// libtest's result of one machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    pub(crate) passed: u32,
    pub(crate) failed: Vec<String>,
    /// Tests left out, each with its reason if it gave one.
    pub(crate) skipped: Vec<String>,
    /// Whether libtest got to its last line.
    pub(crate) complete: bool,
    /// Where probes stand, each with its price beside a single step (tests/e2e/placements.rs).
    pub(crate) placements: Vec<(String, String)>,
}

impl Results {
    /// Reads a console. Lines that are not libtest's (what a program under test prints) are passed over.
    pub(crate) fn read(lines: &[String]) -> Self {
        let mut results = Results::default();
        for line in lines {
            if let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
                let name = name.trim_end();
                if verdict == "FAILED" {
                    results.failed.push(name.to_owned());
                } else if let Some(reason) = verdict.strip_prefix("ignored") {
                    results.skipped.push(format!("`{name}`{reason}"));
                }
            } else if let Some((price, place)) = line.strip_prefix("placement ").and_then(|rest| rest.split_once(' ')) {
                results.placements.push((place.to_owned(), price.to_owned()));
            } else if let Some(counts) = line.strip_prefix("test result: ") {
                // The counts decide: a line of a test may have been torn by something else on the console.
                results.complete = true;
                results.passed += count(counts, " passed");
                pad(&mut results.failed, count(counts, " failed"));
                pad(&mut results.skipped, count(counts, " ignored"));
            }
        }
        results
    }

    pub(crate) fn green(&self) -> bool {
        self.complete && self.failed.is_empty() && self.passed > 0
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

fn count(counts: &str, what: &str) -> u32 {
    let before = counts.split(what).next().unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn pad(names: &mut Vec<String>, count: u32) {
    while names.len() < count as usize {
        names.push("(name lost on the console)".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Results {
        Results::read(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn counts_and_names_are_read() {
        let results = read(
            "running 4 tests\ntest counts::plain ... ok\ntest counts::pie ... FAILED\ntest cgo          ... ignored (no gcc here)\n\
             noise\ntest x ... ok\n\ntest result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
        );
        assert_eq!(results.passed, 2);
        assert_eq!(results.failed, ["counts::pie"]);
        assert_eq!(results.skipped, ["`cgo` (no gcc here)"]);
        assert!(!results.green());
    }

    #[test]
    fn placements_are_read_with_their_price() {
        let results =
            read("test result: ok. 1 passed; 0 failed\nplacement 0.27 `runtime.gopark+76`: `bl runtime.mcall`");
        assert_eq!(results.placements, [("`runtime.gopark+76`: `bl runtime.mcall`".to_owned(), "0.27".to_owned())]);
    }

    #[test]
    fn a_console_that_breaks_off_is_not_green() {
        assert!(!read("running 1 test\ntest a ... ok").green());
    }

    #[test]
    fn nothing_run_is_not_green() {
        assert!(!read("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out").green());
    }

    #[test]
    fn a_torn_line_is_counted_all_the_same() {
        let results = read("test a ... hello FAI\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured");
        assert_eq!(results.failed.len(), 1);
    }
}
