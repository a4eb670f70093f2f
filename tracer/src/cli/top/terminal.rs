//! The terminal: taken over for the picture, and given back as it was on every way out.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use ratatui::backend::{Backend as _, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture, Event};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
};
use ratatui::crossterm::{QueueableCommand as _, cursor, event, execute, terminal};
use ratatui::layout::Rect;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::outbox::{Delivery, Outbox};
use crate::output::tui::apart;

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Held while something is written to it.
static WRITING: Mutex<()> = Mutex::new(());
/// A terminal that hangs is left as it is after this time: we may have been told to end because it hangs.
const HANGS: Duration = Duration::from_millis(500);

/// The terminal while a picture is on it.
pub(super) struct Screen {
    backend: CrosstermBackend<Outbox>,
    delivery: Delivery,
    taken: Taken,
    /// What is on the terminal, and what shall be.
    shown: Buffer,
    next: Buffer,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn take(mouse: bool) -> io::Result<Self> {
        give_back_on_panic();
        let taken = Taken { mouse };
        taken.enter()?;
        let outbox = Outbox::new(Terminal)?;
        let delivery = outbox.delivery();
        let empty = Buffer::empty(size()?);
        Ok(Self { backend: CrosstermBackend::new(outbox), delivery, taken, shown: empty.clone(), next: empty })
    }

    /// Tells when a picture can be drawn.
    pub(super) fn delivery(&self) -> Delivery {
        self.delivery.clone()
    }

    /// Whether the terminal was lost: it takes nothing any more, or a thread's panic gave it back.
    pub(super) fn is_lost(&self) -> bool {
        self.delivery.is_broken() || !TAKEN.load(Ordering::Acquire)
    }

    /// Takes it over again, after we were stopped and something else had it.
    pub(super) fn take_again(&mut self) -> io::Result<()> {
        self.taken.enter()?;
        self.forget()
    }

    /// The next picture is drawn whole, at the terminal's size of now.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        self.next = Buffer::empty(size()?);
        self.shown = self.next.clone();
        self.backend.queue(Clear(ClearType::All))?;
        Ok(())
    }

    /// Draws a picture: only the cells that differ from the last one are written, at once.
    pub(super) fn draw<T>(&mut self, picture: impl FnOnce(&mut Buffer) -> T) -> io::Result<T> {
        self.next.reset();
        let result = picture(&mut self.next);
        self.backend.queue(BeginSynchronizedUpdate)?;
        self.backend.draw(self.shown.diff(&self.next).into_iter())?;
        self.backend.queue(EndSynchronizedUpdate)?;
        Write::flush(&mut self.backend)?;
        std::mem::swap(&mut self.shown, &mut self.next);
        Ok(result)
    }

    /// The size in columns and rows of what is drawn.
    pub(super) fn size(&self) -> (u16, u16) {
        (self.next.area.width, self.next.area.height)
    }
}

/// What is written to while the terminal is ours; pictures that come later are for nobody.
struct Terminal;

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _writing = WRITING.lock();
        if TAKEN.load(Ordering::Acquire) {
            let mut stdout = io::stdout();
            stdout.write_all(bytes)?;
            stdout.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the terminal back when it is dropped.
struct Taken {
    mouse: bool,
}

impl Taken {
    fn enter(&self) -> io::Result<()> {
        TAKEN.store(true, Ordering::Release);
        terminal::enable_raw_mode()?;
        let mut stdout = io::stdout();
        execute!(stdout, EnterAlternateScreen, cursor::Hide, Clear(ClearType::All))?;
        if self.mouse {
            execute!(stdout, EnableMouseCapture)?;
        }
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

fn size() -> io::Result<Rect> {
    let (width, height) = terminal::size()?;
    // Some report 0x0 until they are told better.
    Ok(Rect::new(0, 0, width.max(1), height.max(1)))
}

/// Gives the terminal back, if it is ours. Where that fails there is no terminal any more.
fn give_back() {
    let until = Instant::now() + HANGS;
    let writing = loop {
        match WRITING.try_lock() {
            Ok(writing) => break Some(writing),
            Err(TryLockError::Poisoned(poisoned)) => break Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => break None,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if !TAKEN.swap(false, Ordering::AcqRel) {
        return;
    }
    if writing.is_some() {
        let mut stdout = io::stdout();
        let _ = execute!(stdout, EndSynchronizedUpdate, DisableMouseCapture, LeaveAlternateScreen, cursor::Show);
    }
    let _ = terminal::disable_raw_mode();
}

/// A panic's message is of no use on the other screen.
fn give_back_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        report(panic);
    }));
}

/// What comes from the terminal, read by a thread of its own; ends with the terminal.
pub(super) fn events() -> io::Result<UnboundedReceiver<Event>> {
    let (sender, receiver) = unbounded_channel();
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while let Ok(event) = event::read() {
            for event in apart(event).into_iter().flatten() {
                if sender.send(event).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}
