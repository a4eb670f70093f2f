//! Bytes on their way to the terminal, written by a thread of their own.
//!
//! A terminal can be slow, a connection can hang; events must be read nevertheless. So a picture is handed over whole, and
//! the next one is made only when this one is out: a slow terminal sees fewer pictures, never old ones.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::sync::Notify;

/// Collects bytes until they are flushed, then hands them over.
pub(super) struct Outbox {
    collected: Vec<u8>,
    pictures: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    busy: AtomicBool,
    broken: AtomicBool,
    idle: Notify,
}

/// Tells when the last picture is out.
#[derive(Clone)]
pub(super) struct Delivery(Arc<Shared>);

impl Outbox {
    /// An outbox to `terminal`.
    pub(super) fn new(mut terminal: impl Write + Send + 'static) -> io::Result<Self> {
        let (pictures, waiting) = sync_channel::<Vec<u8>>(1);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("terminal".to_owned()).spawn(move || {
            for picture in waiting {
                let written = terminal.write_all(&picture).and_then(|()| terminal.flush());
                of_thread.broken.fetch_or(written.is_err(), Ordering::Relaxed);
                of_thread.busy.store(false, Ordering::Release);
                of_thread.idle.notify_one();
            }
        })?;
        Ok(Self { collected: Vec::new(), pictures, shared })
    }

    pub(super) fn delivery(&self) -> Delivery {
        Delivery(Arc::clone(&self.shared))
    }
}

impl Delivery {
    /// Whether the next picture can be handed over.
    pub(super) fn is_idle(&self) -> bool {
        !self.0.busy.load(Ordering::Acquire)
    }

    /// Whether the terminal takes no more.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// Waits until the picture that is under way is out.
    pub(super) async fn delivered(&self) {
        while !self.is_idle() {
            self.0.idle.notified().await;
        }
    }
}

impl Write for Outbox {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.collected.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Hands over what was collected. Never waits: who draws has asked [`Delivery::is_idle`].
    fn flush(&mut self) -> io::Result<()> {
        if self.collected.is_empty() {
            return Ok(());
        }
        self.shared.busy.store(true, Ordering::Release);
        let picture = std::mem::take(&mut self.collected);
        self.pictures.try_send(picture).map_err(|_| io::Error::other("the terminal does not take another picture"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    /// A terminal that takes each piece only when it is let.
    struct Slow(Receiver<()>, std::sync::mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(io::Error::other)?;
            self.1.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn who_draws_never_waits_for_the_terminal() -> io::Result<()> {
        let (go, let_go) = channel();
        let (out, written) = channel();
        let mut outbox = Outbox::new(Slow(let_go, out))?;
        let delivery = outbox.delivery();
        assert!(delivery.is_idle());
        write!(outbox, "one ")?;
        write!(outbox, "picture")?;
        assert!(delivery.is_idle(), "nothing is on its way before the flush");
        outbox.flush()?;
        assert!(!delivery.is_idle());
        go.send(()).map_err(io::Error::other)?;
        delivery.delivered().await;
        assert_eq!(written.recv().map_err(io::Error::other)?, b"one picture");
        assert!(!delivery.is_broken());
        drop(go);
        write!(outbox, "another")?;
        outbox.flush()?;
        delivery.delivered().await;
        assert!(delivery.is_broken());
        Ok(())
    }
}
