//! Go servers that nobody here wrote, as Debian has them, and load for them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::child::{Running, poll};
use crate::environment::Skip;

/// Those there are.
pub const NAMES: &[&str] = &["prometheus", "etcd", "caddy", "nats"];

/// A running server. It is killed, and what it wrote is removed, when this is dropped.
pub struct Server {
    running: Running,
    folder: PathBuf,
    port: u16,
    /// What is sent first on each connection, and what then again and again; each is answered by something.
    greeting: &'static str,
    request: &'static str,
}

impl Server {
    /// Starts one and waits until it can be connected to.
    ///
    /// # Errors
    /// [`Skip`] where it is not installed; else when it does not start.
    pub fn start(name: &str) -> Result<Self> {
        const METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        const ROOT: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let (program, port, greeting, request) = match name {
            "prometheus" => ("/usr/bin/prometheus", 39091, "", METRICS),
            "etcd" => ("/usr/bin/etcd", 32389, "", METRICS),
            "caddy" => ("/usr/bin/caddy", 32390, "", ROOT),
            _ => ("/usr/sbin/nats-server", 32391, "CONNECT {\"verbose\":false}\r\n", "PUB news 5\r\nhello\r\nPING\r\n"),
        };
        if !Path::new(program).is_file() {
            return Err(Skip(format!("{program} is not installed")).into());
        }
        let folder = std::env::temp_dir().join(format!("gotracer-server-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut command = command(name, program, port, &folder)?;
        let server = Self { running: Running::start(name, &mut command)?, folder, port, greeting, request };
        poll(|| Ok(TcpStream::connect(("127.0.0.1", port)).ok()))?;
        Ok(server)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Load from now on.
    pub fn load(&self) -> Load {
        Load::start(self.port, self.greeting, self.request)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn command(name: &str, program: &str, port: u16, folder: &Path) -> Result<Command> {
    let mut command = Command::new(program);
    let address = format!("127.0.0.1:{port}");
    match name {
        "prometheus" => {
            std::fs::write(folder.join("p.yml"), "global: {scrape_interval: 1s}\nscrape_configs: []\n")?;
            command.arg("--config.file").arg(folder.join("p.yml"));
            command.arg("--storage.tsdb.path").arg(folder.join("data"));
            command.arg(format!("--web.listen-address={address}"));
        }
        "etcd" => {
            let (clients, peers) = (format!("http://{address}"), "http://127.0.0.1:32388");
            command.arg("--data-dir").arg(folder.join("data"));
            command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
            command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
            command.args(["--initial-cluster", &format!("default={peers}")]);
        }
        "caddy" => {
            std::fs::write(folder.join("index.html"), "hello")?;
            command.env("HOME", folder).args(["file-server", "--listen", &address, "--root"]).arg(folder);
        }
        _ => {
            command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        }
    }
    Ok(command)
}

/// Requests as fast as four threads can send them, one connection each.
pub struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, greeting: &'static str, request: &'static str) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4).map(|_| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            std::thread::spawn(move || {
                let talk = || -> std::io::Result<()> {
                    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
                    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                    stream.write_all(greeting.as_bytes())?;
                    let mut buffer = [0; 1 << 16];
                    while !stop.load(Ordering::Relaxed) {
                        stream.write_all(request.as_bytes())?;
                        if stream.read(&mut buffer)? == 0 {
                            break;
                        }
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                };
                while !stop.load(Ordering::Relaxed) && talk().is_ok() {}
            })
        });
        let threads = threads.collect();
        Self { stop, answers, threads }
    }

    /// Ends it; gives how many requests were answered.
    #[must_use]
    pub fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        self.answers.load(Ordering::Relaxed)
    }
}
