//! What systemd wants to know of a `Type=notify` service: datagrams to the socket that it names.
//! <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells systemd, if it started us; what goes wrong is logged.
pub fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let send = || -> std::io::Result<()> {
        let name = socket.to_string_lossy();
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&*name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    };
    if let Err(error) = send() {
        log::warn!("systemd cannot be told `{}`: {error}", state.trim_end());
    }
}

/// `RELOADING=1`, which from version 253 on wants the time with it.
pub fn notify_reloading() {
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", crate::events::now().0 / 1000));
}

/// How often systemd wants to hear from us, if it does: half of what it allows.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let for_us = std::env::var("WATCHDOG_PID").ok().is_none_or(|pid| pid == std::process::id().to_string());
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    for_us.then(|| Duration::from_micros((micros / 2).max(1000)))
}
