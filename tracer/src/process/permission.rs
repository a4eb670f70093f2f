//! What to do about a process that may not be looked at.
//!
//! Out: the end of a sentence. Who is root already is not told to become it.

/// The way out, behind "no permission to read something of a process".
pub(super) fn way_out() -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    way_out_of(&status)
}

fn way_out_of(status: &str) -> &'static str {
    // Real, effective, saved, of the file system.
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    if effective == Some("0") {
        "though this is root: CAP_SYS_PTRACE is missing (`gotracer doctor` tells), or the process is in a user namespace over \
         which this one has no say, or a security module forbids it"
    } else {
        "run as root, or with CAP_SYS_PTRACE, and for probes CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN"
    }
}

#[cfg(test)]
mod tests {
    use super::way_out_of;

    #[test]
    fn root_is_not_told_to_become_root() {
        assert!(way_out_of("Name:\tgotracer\nUid:\t0\t0\t0\t0\n").starts_with("though this is root"));
        assert!(way_out_of("Name:\tgotracer\nUid:\t0\t1000\t0\t1000\n").starts_with("run as root"));
        assert!(way_out_of("").starts_with("run as root"));
    }
}
