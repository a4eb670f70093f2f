//! The payload of a frame of events: columns, each of what is alike, with small dictionaries for goids and sites.
//!
//! In and out: [`Event`]s of one process and bytes. On a ping-pong an event takes some 4 bytes before zstd.
//!
//! The columns: a *tag* per event (what happened, and why it blocked), the *time* since the event before, the *goid* by its
//! place in the frame's dictionary, and *arguments* of the few that have some.

use hashbrown::HashMap;

use super::bytes::{Cursor, Malformed, put, put_bytes, put_difference};
use super::tables::{json, read_json};
use crate::events::{Event, Transition};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

/// Events in a frame at most: enough for the dictionaries and zstd to pay off, few enough to be decoded in the cache.
pub(super) const MOST: usize = 1 << 14;

const CREATED: u8 = 0;
const RUNNING: u8 = 1;
const EXITED: u8 = 2;
const EXEC: u8 = 3;
const LOST: u8 = 4;
/// Blocked, the reason among the arguments.
const BLOCKED: u8 = 5;
/// From here on: blocked, the reason is what the tag is more than this.
const BLOCKED_FOR: u8 = 6;

/// Events on their way into a frame.
#[derive(Debug, Default)]
pub(super) struct Columns {
    tags: Vec<u8>,
    times: Vec<u8>,
    goids: Vec<u8>,
    arguments: Vec<u8>,
    first: MonotonicNs,
    last: MonotonicNs,
    goid_codes: GoidCodes,
    site_codes: HashMap<(RemoteAddr, RemoteAddr), u64>,
    last_new_site: (u64, u64),
}

/// The goids of a frame by the order in which they come, from 1.
#[derive(Debug, Default)]
struct GoidCodes {
    codes: HashMap<Goid, u64>,
    last_new: u64,
}

impl GoidCodes {
    /// Appends the code of `goid`; for a new one 0, and how far it is from the new one before it.
    #[inline]
    fn put(&mut self, column: &mut Vec<u8>, goid: Goid) {
        let next = self.codes.len() as u64 + 1;
        match *self.codes.entry(goid).or_insert(next) {
            code if code == next => {
                put(column, 0);
                put_difference(column, self.last_new, goid.0);
                self.last_new = goid.0;
            }
            code => put(column, code),
        }
    }
}

impl Columns {
    pub(super) fn len(&self) -> usize {
        self.tags.len()
    }

    pub(super) fn first(&self) -> MonotonicNs {
        self.first
    }

    pub(super) fn last(&self) -> MonotonicNs {
        self.last
    }

    pub(super) fn push(&mut self, event: &Event) {
        let time = event.time();
        if self.tags.is_empty() {
            self.first = time;
            self.last = time;
        }
        put_difference(&mut self.times, self.last.0, time.0);
        self.last = time;
        let tag = match *event {
            Event::Goroutine { goid, transition, .. } => {
                self.goid_codes.put(&mut self.goids, goid);
                match transition {
                    Transition::Created { parent, gopc, startpc } => {
                        self.push_creation(parent, gopc, startpc);
                        CREATED
                    }
                    Transition::Running => RUNNING,
                    Transition::Exited => EXITED,
                    Transition::Blocked { reason } => match reason.checked_add(BLOCKED_FOR) {
                        Some(tag) => tag,
                        None => {
                            self.arguments.push(reason);
                            BLOCKED
                        }
                    },
                }
            }
            Event::Exec { .. } => EXEC,
            Event::Lost { cpu, count, cause, .. } => {
                put(&mut self.arguments, u64::from(cpu));
                put(&mut self.arguments, count);
                // By name: there may be more of them one day.
                put_bytes(&mut self.arguments, &json(&cause));
                LOST
            }
        };
        self.tags.push(tag);
    }

    fn push_creation(&mut self, parent: Goid, gopc: RemoteAddr, startpc: RemoteAddr) {
        self.goid_codes.put(&mut self.arguments, parent);
        let next = self.site_codes.len() as u64 + 1;
        match *self.site_codes.entry((gopc, startpc)).or_insert(next) {
            code if code == next => {
                put(&mut self.arguments, 0);
                put_difference(&mut self.arguments, self.last_new_site.0, gopc.0);
                put_difference(&mut self.arguments, self.last_new_site.1, startpc.0);
                self.last_new_site = (gopc.0, startpc.0);
            }
            code => put(&mut self.arguments, code),
        }
    }

    /// Appends the payload, and begins anew.
    pub(super) fn take(&mut self, generation: u32, out: &mut Vec<u8>) {
        put(out, u64::from(generation));
        put(out, self.first.0);
        let columns = [&mut self.tags, &mut self.times, &mut self.goids, &mut self.arguments];
        for column in &columns {
            put(out, column.len() as u64);
        }
        for column in columns {
            out.append(column);
        }
        self.goid_codes.codes.clear();
        self.goid_codes.last_new = 0;
        self.site_codes.clear();
        self.last_new_site = (0, 0);
    }
}

/// Reads the events of a frame, all of process `pid`.
pub(super) fn read(payload: &[u8], pid: Pid) -> Result<Vec<Event>, Malformed> {
    let mut cursor = Cursor(payload);
    let _generation = cursor.number_u32()?;
    let mut time = cursor.number()?;
    let lens = [cursor.count()?, cursor.count()?, cursor.count()?, cursor.count()?];
    let [tags, mut times, mut goids, mut arguments] =
        [cursor.take(lens[0])?, cursor.take(lens[1])?, cursor.take(lens[2])?, cursor.take(lens[3])?];
    cursor.end()?;
    if tags.0.len() > MOST {
        return Err(Malformed("it holds too many events"));
    }
    let mut events = Vec::with_capacity(tags.0.len());
    let mut dictionary = Dictionary::default();
    for &tag in tags.0 {
        time = times.difference(time)?;
        let at = MonotonicNs(time);
        events.push(match tag {
            EXEC => Event::Exec { time: at, pid },
            LOST => Event::Lost {
                time: at,
                cpu: arguments.number_u32()?,
                count: arguments.number()?,
                cause: read_json(arguments.text()?.as_bytes())?,
            },
            tag => {
                let goid = dictionary.goid(&mut goids)?;
                let transition = match tag {
                    RUNNING => Transition::Running,
                    EXITED => Transition::Exited,
                    CREATED => {
                        let parent = dictionary.goid(&mut arguments)?;
                        let (gopc, startpc) = dictionary.site(&mut arguments)?;
                        Transition::Created { parent, gopc, startpc }
                    }
                    BLOCKED => Transition::Blocked { reason: arguments.byte()? },
                    tag => Transition::Blocked { reason: tag - BLOCKED_FOR },
                };
                Event::Goroutine { time: at, pid, goid, transition }
            }
        });
    }
    times.end()?;
    goids.end()?;
    arguments.end()?;
    Ok(events)
}

#[derive(Default)]
struct Dictionary {
    goids: Vec<u64>,
    last_goid: u64,
    sites: Vec<(u64, u64)>,
}

impl Dictionary {
    #[inline]
    fn goid(&mut self, cursor: &mut Cursor<'_>) -> Result<Goid, Malformed> {
        match cursor.number()?.checked_sub(1) {
            Some(index) => {
                let known = usize::try_from(index).ok().and_then(|index| self.goids.get(index));
                known.map(|goid| Goid(*goid)).ok_or(Malformed("it speaks of a goroutine that it does not name"))
            }
            None => {
                self.last_goid = cursor.difference(self.last_goid)?;
                self.goids.push(self.last_goid);
                Ok(Goid(self.last_goid))
            }
        }
    }

    fn site(&mut self, cursor: &mut Cursor<'_>) -> Result<(RemoteAddr, RemoteAddr), Malformed> {
        let (gopc, startpc) = match cursor.number()?.checked_sub(1) {
            Some(index) => {
                let known = usize::try_from(index).ok().and_then(|index| self.sites.get(index));
                *known.ok_or(Malformed("it speaks of a site that it does not name"))?
            }
            None => {
                let (gopc, startpc) = self.sites.last().copied().unwrap_or_default();
                let site = (cursor.difference(gopc)?, cursor.difference(startpc)?);
                self.sites.push(site);
                site
            }
        };
        Ok((RemoteAddr(gopc), RemoteAddr(startpc)))
    }
}
