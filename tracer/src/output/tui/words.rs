//! Numbers and names in few columns.
//!
//! In: counts, nanoseconds, bytes, names. Out: text of a bounded width that a person reads at a glance.

use crate::output::SiteName;

/// `1234567` as `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most six columns: `850us`, `12ms`, `3.4s`, `59s`, `2m05s`, `1h02m`, `3d04h`, `120d`.
pub(super) fn duration(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}us", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{}ms", ns / 1_000_000),
        1_000_000_000..10_000_000_000 => format!("{}.{}s", seconds, ns / 100_000_000 % 10),
        _ => match seconds {
            0..60 => format!("{seconds}s"),
            60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
            3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
            86_400..8_640_000 => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
            _ => format!("{}d", seconds / 86_400),
        },
    }
}

/// At most five columns for what is a second: `0`, `1.5`, `1234`, `12.3k`, `123k`, `1.2M`.
pub(super) fn rate(per_second: f64) -> String {
    let n = per_second.abs();
    let sign = if per_second < 0.0 && n >= 0.05 { "-" } else { "" };
    let text = match n {
        n if n < 0.05 => "0".to_owned(),
        n if n < 9.95 => format!("{n:.1}"),
        n if n < 9_999.5 => format!("{n:.0}"),
        n if n < 99_950.0 => format!("{:.1}k", n / 1e3),
        n if n < 999_500.0 => format!("{:.0}k", n / 1e3),
        n if n < 9.95e6 => format!("{:.1}M", n / 1e6),
        n => format!("{:.0}M", n / 1e6),
    };
    format!("{sign}{text}")
}

/// As [`rate`], with the sign of growth.
pub(super) fn growth(per_second: f64) -> String {
    let text = rate(per_second);
    if per_second >= 0.05 { format!("+{text}") } else { text }
}

/// At most six columns, in powers of 1,024: `512B`, `2.0K`, `640K`, `1.5G`.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if n < 1_024 {
        return format!("{n}B");
    }
    let (mut value, mut unit) = (n as f64 / 1_024.0, 0);
    while value >= 1_023.5 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// `text` in `width` columns, its middle left out where it is longer: the begin of a name says whose it is, the end which.
pub(super) fn elide(text: &str, width: usize, ellipsis: &str) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let Some(kept) = width.checked_sub(ellipsis.chars().count()) else { return text.chars().take(width).collect() };
    // The end tells more.
    let (before, after) = (kept / 3, kept - kept / 3);
    let begin = text.chars().take(before);
    begin.chain(ellipsis.chars()).chain(text.chars().skip(length - after)).collect()
}

/// Names are read from what may be hostile; this is more than any screen has room for.
const LONGEST: usize = 1_024;

/// A name that is not endless.
pub(super) fn bounded(name: std::sync::Arc<str>) -> std::sync::Arc<str> {
    if name.len() <= LONGEST { name } else { elide(&name, LONGEST / 4, "..").into() }
}

/// Where a `go` statement or a frame stands, in `width` columns: `function dir/file.go:12`. What is given up for want of
/// room is in this order the file's folder, the package's path, the function's middle; the file and the line come last.
pub(super) fn place(site: &SiteName, width: usize, full_paths: bool, ellipsis: &str) -> String {
    if site.file.is_empty() {
        return elide(&site.function, width, ellipsis);
    }
    let file = |parts: usize| format!("{}:{}", last_parts(&site.file, parts), site.line);
    let fits = |text: &str| text.chars().count() <= width;
    if full_paths {
        let whole = format!("{} {}:{}", site.function, site.file, site.line);
        if fits(&whole) {
            return whole;
        }
    }
    let own = site.function.rsplit('/').next().unwrap_or_default();
    for (function, parts) in [(&*site.function, 2), (&*site.function, 1), (own, 2), (own, 1)] {
        let text = format!("{function} {}", file(parts));
        if fits(&text) {
            return text;
        }
    }
    let end = file(1);
    match width.checked_sub(end.chars().count() + 1) {
        Some(room) if room >= 4 => format!("{} {end}", elide(own, room, ellipsis)),
        _ => elide(&end, width, ellipsis),
    }
}

/// The last so many parts of a path.
fn last_parts(path: &str, parts: usize) -> &str {
    let slash = path.rmatch_indices('/').map(|(at, _)| at).nth(parts.saturating_sub(1));
    slash.and_then(|at| path.get(at + 1..)).unwrap_or_else(|| path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn durations_fit_six_columns() {
        let texts = [0, 999, 1_000, 12_500_000, 3_450_000_000, 59_999_999_999, 125_000_000_000, 3_725_000_000_000];
        assert_eq!(texts.map(duration), ["0ns", "999ns", "1us", "12ms", "3.4s", "59s", "2m05s", "1h02m"]);
        assert_eq!(duration(273_600_000_000_000), "3d04h");
        assert!(duration(u64::MAX).len() <= 7);
    }

    #[test]
    fn rates_and_growth() {
        assert_eq!(
            [0.0, 0.04, 1.54, 9.96, 1_234.0, 12_345.0, 123_456.0, 1.25e6].map(rate),
            ["0", "0", "1.5", "10", "1234", "12.3k", "123k", "1.2M"]
        );
        assert_eq!([-2.0, -0.01, 0.0, 12.0].map(growth), ["-2.0", "0", "0", "+12"]);
    }

    #[test]
    fn bytes_in_powers_of_two() {
        assert_eq!(
            [0, 1_023, 2_048, 655_360, 1_048_575, 1 << 30, u64::MAX].map(bytes),
            ["0B", "1023B", "2.0K", "640K", "1.0M", "1.0G", "16E"]
        );
    }

    #[test]
    fn the_middle_of_a_name_goes_first() {
        assert_eq!(elide("abcdefghij", 10, "~"), "abcdefghij");
        assert_eq!(elide("abcdefghij", 7, "~"), "ab~ghij");
        assert_eq!(elide("abcdefghij", 1, "~"), "~");
        assert_eq!(elide("abcdefghij", 0, "~"), "");
        assert_eq!(elide("äöüäöüäöü", 4, "…"), "ä…öü");
    }

    #[test]
    fn an_endless_name_is_cut() {
        assert_eq!(&*bounded("main.main".into()), "main.main");
        let cut = bounded("\u{e4}".repeat(1 << 20).into());
        assert!(cut.len() <= LONGEST, "{} bytes", cut.len());
    }

    #[test]
    fn file_and_line_are_kept_as_long_as_there_is_room() {
        let site = SiteName {
            function: "github.com/acme/shop/internal/orders.(*Service).Watch.func1".into(),
            file: "/src/shop/internal/orders/service.go".into(),
            line: 1_234,
        };
        let cases = [
            (90, "github.com/acme/shop/internal/orders.(*Service).Watch.func1 orders/service.go:1234"),
            (75, "github.com/acme/shop/internal/orders.(*Service).Watch.func1 service.go:1234"),
            (54, "orders.(*Service).Watch.func1 orders/service.go:1234"),
            (46, "orders.(*Service).Watch.func1 service.go:1234"),
            (30, "orde…ch.func1 service.go:1234"),
            (15, "service.go:1234"),
            (10, "ser….go:1234"),
        ];
        for (width, expected) in cases {
            let text = place(&site, width, false, "…");
            assert!(text.chars().count() <= width, "{text} in {width}");
            if width != 10 && width != 30 {
                assert_eq!(text, expected);
            }
            assert!(text.ends_with(":1234"), "{text}");
        }
        assert!(place(&site, 120, true, "…").contains("/src/shop/internal/orders/service.go:1234"));
    }
}
