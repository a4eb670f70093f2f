//! What the machine under the tests allows, and where the things to be tested are.

/// In CI nothing may be skipped: what is missing there is an error.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// This machine's processor in Go's terms.
pub fn host_goarch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
