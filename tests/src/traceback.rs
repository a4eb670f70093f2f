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
    /// What stands behind the brackets: from Go 1.27 on the profiler's labels, in braces.
    pub labels: String,
    /// All lines below the head.
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
        // Labels may hold whatever is in a head, but for their own end.
        let parsed = head.strip_prefix("goroutine ").and_then(|rest| {
            let (goid, rest) = rest.strip_suffix(':')?.split_once(" [")?;
            let (state, labels) = match rest.split_once("] {") {
                Some((state, labels)) => (state, labels.strip_suffix('}')?),
                None => (rest.strip_suffix(']')?, ""),
            };
            Some((goid, state, labels))
        });
        let (goid, state, labels) = parsed.with_context(|| format!("{head:?} is no head of a goroutine"))?;
        let goid = goid.parse().with_context(|| format!("no number in {head:?}"))?;
        let traced =
            Traced { state: state.to_owned(), labels: labels.to_owned(), lines: lines.map(str::to_owned).collect() };
        ensure!(found.insert(goid, traced).is_none(), "goroutine {goid} is there twice");
    }
    Ok(found)
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
    fn heads_have_labels_or_not() {
        let text = "goroutine 1 [running]:\nmain.f(0x1)\n\ngoroutine 2 [select, 2 minutes] {a: \"]:\"}:\nmain.g(...)\n";
        let parsed = parse(text).expect("it is a traceback");
        assert_eq!((parsed[&1].state.as_str(), parsed[&1].labels.as_str()), ("running", ""));
        assert_eq!((parsed[&2].state.as_str(), parsed[&2].labels.as_str()), ("select, 2 minutes", "a: \"]:\""));
        assert_eq!(parsed[&2].lines, ["main.g(...)"]);
    }
}
