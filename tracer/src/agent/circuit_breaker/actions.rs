//! What can be done for a process in trouble. Each is tried, none stops the next, and each says what came of it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use tokio::io::AsyncReadExt;

use super::incident::{Done, Incident};
use crate::agent::config::{Alarm, Config, MemoryHigh, Span};
use crate::agent::container::{Container, memory_limit};
use crate::agent::post;
use crate::tracee::Tracee;

/// Does all that `alarm` says, in the order in which the configuration explains it.
pub async fn all(alarm: &Alarm, incident: &Incident, tracee: &Tracee, config: &Config) -> Vec<Done> {
    let (act, ca_file) = (&alarm.act, &config.otlp.ca_file);
    let mut done = Vec::new();
    let dry = incident.dry_run;
    if let Some(file) = &act.touch {
        let result = if dry { Ok(()) } else { touch(file, incident) };
        done.push(finished("touch", file.display().to_string(), dry, Instant::now(), result.map(|()| String::new())));
    }
    if let Some(signal) = act.signal {
        let result = if dry { Ok(()) } else { tracee.process().signal(signal.0) };
        done.push(finished("signal", signal.to_string(), dry, Instant::now(), result.map(|()| String::new())));
    }
    if let Some(high) = act.memory_high {
        let result = memory_high(tracee, high, &config.discovery.cgroups, dry);
        let with = result.as_ref().map_or_else(|_| format!("{high:?}"), ToString::to_string);
        done.push(finished("memory_high", with, dry, Instant::now(), result.map(|_| String::new())));
    }
    if let Some((program, arguments)) = act.hook.split_first() {
        let begin = Instant::now();
        let result = if dry { Ok(String::new()) } else { hook(program, arguments, act.hook_timeout, incident).await };
        done.push(finished("hook", act.hook.join(" "), dry, begin, result));
    }
    if let Some(address) = &act.webhook {
        let begin = Instant::now();
        let result =
            if dry { Ok(String::new()) } else { webhook(address, act.webhook_timeout, incident, ca_file).await };
        done.push(finished("webhook", address.clone(), dry, begin, result));
    }
    done
}

fn finished(action: &'static str, with: String, dry_run: bool, begin: Instant, result: io::Result<String>) -> Done {
    let took_ms = begin.elapsed().as_millis() as u64;
    let (failed, output) = match result {
        Ok(output) => (None, output),
        Err(error) => (Some(error.to_string()), String::new()),
    };
    Done { action, with, dry_run, took_ms, failed, output }
}

/// Creates the file, or writes it anew: its content says why it is there. Never through a symbolic link.
fn touch(file: &Path, incident: &Incident) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(file)?;
    serde_json::to_writer(&mut file, incident)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Sets the `memory.high` of the process's cgroup; gives the bytes that it was set to.
fn memory_high(tracee: &Tracee, high: MemoryHigh, mounted: &Path, dry_run: bool) -> io::Result<u64> {
    let pid = tracee.process().pid();
    let not_found = |what: String| io::Error::new(io::ErrorKind::NotFound, what);
    let container = Container::of(pid);
    if tracee.process().has_exited() {
        return Err(not_found(format!("process {pid} has exited")));
    }
    let out_of_sight = || not_found(format!("the cgroup {} is not in sight", container.cgroup));
    let folder = container.folder(mounted).ok_or_else(out_of_sight)?;
    let file = folder.join("memory.high");
    if !file.is_file() {
        return Err(not_found(format!(
            "{} is not there: cgroup version 2 with the memory controller is needed",
            file.display()
        )));
    }
    let bytes = match high {
        MemoryHigh::Bytes(bytes) => bytes,
        MemoryHigh::Percent(percent) => {
            let limit = memory_limit(&folder, mounted);
            let limit = limit.ok_or_else(|| not_found("the cgroup has no memory.max to take a share of".to_owned()))?;
            (limit as f64 * percent / 100.0) as u64
        }
    };
    if !dry_run {
        std::fs::write(&file, bytes.to_string())?;
    }
    Ok(bytes)
}

/// Runs a program in a process group of its own, with nothing but the documented environment; kills the group if it takes
/// too long.
async fn hook(program: &str, arguments: &[String], timeout: Span, incident: &Incident) -> io::Result<String> {
    const OUTPUT: u64 = 4096;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).env_clear().envs(environment(incident)).process_group(0).kill_on_drop(true);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let group = child.id().and_then(|pid| libc::pid_t::try_from(pid).ok());
    let mut stdout = child.stdout.take();
    let wait = async {
        let mut output = Vec::new();
        if let Some(stdout) = &mut stdout {
            stdout.take(OUTPUT).read_to_end(&mut output).await?;
            // The rest is read and dropped, so that the hook does not hang on a full pipe.
            tokio::io::copy(stdout, &mut tokio::io::sink()).await?;
        }
        let status = child.wait().await?;
        Ok::<_, io::Error>((status, output))
    };
    match tokio::time::timeout(timeout.0, wait).await {
        Ok(Ok((status, output))) if status.success() => Ok(String::from_utf8_lossy(&output).into_owned()),
        Ok(Ok((status, output))) => {
            Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&output).trim_end())))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            if let Some(group) = group {
                // SAFETY: no memory of ours. The child has not been waited for, so its PID, the group's, is still its own.
                unsafe { libc::kill(-group, libc::SIGKILL) };
            }
            // Reaped here: what kill_on_drop leaves is reaped by the runtime.
            let _ = child.wait().await;
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("killed after {:?}", timeout.0)))
        }
    }
}

/// The environment of a hook, as docs/agent.md has it.
fn environment(incident: &Incident) -> Vec<(&'static str, String)> {
    let process = &incident.process;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let figure = serde_json::to_value(incident.figure).ok().and_then(|name| name.as_str().map(str::to_owned));
    vec![
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("GOTRACER_ALARM", incident.alarm.clone()),
        ("GOTRACER_FIGURE", figure.unwrap_or_default()),
        ("GOTRACER_VALUE", incident.value.to_string()),
        ("GOTRACER_THRESHOLD", incident.above.or(incident.below).unwrap_or_default().to_string()),
        ("GOTRACER_GOROUTINES", incident.goroutines.to_string()),
        ("GOTRACER_PID", process.pid.to_string()),
        ("GOTRACER_PROCESS", process.process.clone()),
        ("GOTRACER_BINARY", process.binary.clone()),
        ("GOTRACER_CONTAINER", text(&process.container)),
        ("GOTRACER_POD_UID", text(&process.pod_uid)),
        ("GOTRACER_NAMESPACE", text(&process.namespace)),
        ("GOTRACER_POD", text(&process.pod)),
        ("GOTRACER_EVIDENCE", incident.evidence.as_ref().map(|path| path.display().to_string()).unwrap_or_default()),
    ]
}

async fn webhook(address: &str, timeout: Span, incident: &Incident, ca_file: &Path) -> io::Result<String> {
    let body = serde_json::to_vec(incident)?;
    let status = post::post(address, "application/json", &[], body, timeout.0, ca_file).await?;
    Ok(format!("HTTP {status}"))
}
