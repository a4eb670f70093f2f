//! A real terminal: tmux, told what to type and asked what is on its screen.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::environment::{Skip, patience};

/// A terminal with a shell command in it. Its server ends when it is dropped.
pub struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// A terminal of so many columns and rows in which `script` runs, by the shell.
    ///
    /// # Errors
    /// [`Skip`] where there is no tmux.
    pub fn start((width, height): (u16, u16), script: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if Command::new("tmux").arg("-V").output().is_err() {
            return Err(Skip("there is no tmux".into()).into());
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("gotracer-test-{}-{number}", std::process::id()));
        let terminal = Self { socket };
        let size = [width.to_string(), height.to_string()];
        // The server's own settings: no status line, nobody's configuration file, and the pane stays when its program
        // has ended.
        let start = ["-u", "-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], script];
        let settings = [";", "set", "-g", "status", "off", ";", "set", "-g", "remain-on-exit", "on"];
        terminal.tmux(&[&start[..], &settings[..]].concat())?;
        Ok(terminal)
    }

    fn tmux(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).args(args).env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        let output = command.output().context("cannot run tmux")?;
        ensure!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types keys, by tmux's names for them (`Enter`, `F5`, `Down`, `a`).
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Types text as it is, escape sequences included.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn text(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", text]).map(drop)
    }

    /// Clicks on a cell, counted from 0, as a terminal tells it to a program that asked for the mouse (SGR).
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn click(&self, x: usize, y: usize) -> Result<()> {
        let (x, y) = (x + 1, y + 1);
        self.text(&format!("\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m"))
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]).map(drop)
    }

    /// What is on the screen, without colours.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What tmux knows of the terminal, by the name of one of its variables: `alternate_on`, `cursor_flag`, `pane_dead`.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub fn flag(&self, name: &str) -> Result<String> {
        Ok(self.tmux(&["display-message", "-p", &format!("#{{{name}}}")])?.trim().to_owned())
    }

    /// Waits until the screen is as it should be, and gives it. `what` says in an error what was waited for.
    ///
    /// # Errors
    /// When it does not become so, with what is there instead.
    pub fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + patience();
        loop {
            let screen = self.screen()?;
            if is_so(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("the screen was to show {what} within {:?}; it shows\n{screen}", patience());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the screen shows this text, and gives it.
    ///
    /// # Errors
    /// As [`Self::until`].
    pub fn until_shown(&self, text: &str) -> Result<String> {
        self.until(&format!("{text:?}"), |screen| screen.contains(text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
        let _ = std::fs::remove_file(&self.socket);
    }
}
