//! The text of Go's tracebacks (`debug=2`), and what a program serves of it over HTTP.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};

use crate::environment::patience;

/// One goroutine of a traceback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// What stands between the brackets: `chan receive, 2 minutes, locked to thread`.
    pub state: String,
    /// All lines below the head, the arguments of each call replaced by `...`.
    pub lines: Vec<String>,
}

impl Traced {
    /// Whether a line begins with this.
    pub fn has(&self, start: &str) -> bool {
        self.lines.iter().any(|line| line.starts_with(start))
    }
}

/// Reads a traceback of many goroutines, by goid.
///
/// # Errors
/// When a block has no head that we know, or two have the same number.
pub fn parse(text: &str) -> Result<BTreeMap<u64, Traced>> {
    let mut found = BTreeMap::new();
    for block in text.trim_end().split("\n\n").filter(|block| !block.is_empty()) {
        let mut lines = block.lines();
        let head = lines.next().unwrap_or_default();
        // From Go 1.27 on, the profiler's labels stand behind the state, in braces; the text of a dump leaves them out.
        let plain = head.split_once("] {").map_or_else(|| head.to_owned(), |(plain, _)| format!("{plain}]:"));
        let parsed = plain.strip_prefix("goroutine ").and_then(|rest| rest.strip_suffix("]:")?.split_once(" ["));
        let (goid, state) = parsed.with_context(|| format!("{head:?} is no head of a goroutine"))?;
        let goid = goid.parse().with_context(|| format!("no number in {head:?}"))?;
        let traced = Traced { state: state.to_owned(), lines: lines.map(without_arguments).collect() };
        ensure!(found.insert(goid, traced).is_none(), "goroutine {goid} is there twice");
    }
    Ok(found)
}

/// `main.f(0x1, {0x2, 0x3})` as `main.f(...)`.
fn without_arguments(line: &str) -> String {
    if line.starts_with('\t') || line.starts_with("created by ") || !line.ends_with(')') {
        return line.to_owned();
    }
    let mut depth = 0;
    for (at, c) in line.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return format!("{}(...)", &line[..at]);
        }
    }
    line.to_owned()
}

/// What a server on a loopback port answers to a GET.
///
/// # Errors
/// When it does not answer, or not with 200.
pub fn get(port: u64, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port)?)).context("cannot connect to the target")?;
    stream.set_read_timeout(Some(patience()))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the target did not answer")?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head in the answer")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "the target answered {head}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_go_and_receivers_stay() {
        assert_eq!(without_arguments("main.(*T[...]).f({0x1?, 0x2}, ...)"), "main.(*T[...]).f(...)");
        assert_eq!(without_arguments("main.f()"), "main.f(...)");
        assert_eq!(without_arguments("\t/a(b)/c.go:1 +0x2"), "\t/a(b)/c.go:1 +0x2");
    }
}
