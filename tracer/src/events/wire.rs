//! From the bytes of a sample to an [`Event`]: the only reader of the wire format.

use bytes::Buf;
use gotracer_ebpf as wire;

use super::{Event, Transition};
use crate::units::{Goid, MonotonicNs, Pid, RemoteAddr};

/// Why a sample is not an event. It means that programs and reader are of different builds, or a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than its kind has.
    #[error("an event of {bytes} bytes is cut off")]
    Truncated {
        /// How many there are.
        bytes: usize,
    },
    /// Another version of the wire.
    #[error("an event of wire version {found}; this gotracer reads {}", wire::WIRE_VERSION)]
    Version {
        /// Its version.
        found: u16,
    },
    /// Not one of the `EVENT_*`.
    #[error("an event of unknown kind {kind}")]
    Kind {
        /// Its kind.
        kind: u8,
    },
}

/// Decodes one sample. What follows the event, as padding, is passed over.
///
/// # Errors
///
/// If it is not an event of [`wire::WIRE_VERSION`].
pub fn decode(mut sample: &[u8]) -> Result<Event, WireError> {
    let bytes = sample.len();
    if bytes < size_of::<wire::Event>() {
        return Err(WireError::Truncated { bytes });
    }
    // In the order of the fields of `wire::Event`.
    let time = MonotonicNs(sample.get_u64_ne());
    let goid = Goid(sample.get_u64_ne());
    let pid = Pid(sample.get_u32_ne());
    let kind = sample.get_u8();
    let reason = sample.get_u8();
    let version = sample.get_u16_ne();
    if version != wire::WIRE_VERSION {
        return Err(WireError::Version { found: version });
    }
    let transition = match kind {
        wire::EVENT_CREATED => {
            if sample.remaining() < size_of::<wire::Created>() - size_of::<wire::Event>() {
                return Err(WireError::Truncated { bytes });
            }
            Transition::Created {
                parent: Goid(sample.get_u64_ne()),
                gopc: RemoteAddr(sample.get_u64_ne()),
                startpc: RemoteAddr(sample.get_u64_ne()),
            }
        }
        wire::EVENT_BLOCKED => Transition::Blocked { reason },
        wire::EVENT_RUNNING => Transition::Running,
        wire::EVENT_EXITED => Transition::Exited,
        wire::EVENT_EXEC => return Ok(Event::Exec { time, pid }),
        kind => return Err(WireError::Kind { kind }),
    };
    Ok(Event::Goroutine { time, pid, goid, transition })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, version: u16) -> Vec<u8> {
        let mut sample = Vec::new();
        sample.extend_from_slice(&7_u64.to_ne_bytes());
        sample.extend_from_slice(&8_u64.to_ne_bytes());
        sample.extend_from_slice(&9_u32.to_ne_bytes());
        sample.extend_from_slice(&[kind, 4]);
        sample.extend_from_slice(&version.to_ne_bytes());
        sample
    }

    #[test]
    fn fields_are_where_the_kernel_programs_put_them() {
        assert_eq!(std::mem::offset_of!(wire::Event, tgid), 16);
        assert_eq!(std::mem::offset_of!(wire::Event, kind), 20);
        assert_eq!(std::mem::offset_of!(wire::Event, version), 22);
        assert_eq!(std::mem::offset_of!(wire::Created, parent_goid), 24);
        assert_eq!(size_of::<wire::Created>(), 48);
        let blocked = decode(&head(wire::EVENT_BLOCKED, wire::WIRE_VERSION)).expect("decodes");
        let expected = Event::Goroutine {
            time: MonotonicNs(7),
            pid: Pid(9),
            goid: Goid(8),
            transition: Transition::Blocked { reason: 4 },
        };
        assert_eq!(blocked, expected);
    }

    #[test]
    fn what_is_not_an_event_is_an_error() {
        let good = head(wire::EVENT_CREATED, wire::WIRE_VERSION);
        assert_eq!(decode(&good), Err(WireError::Truncated { bytes: 24 }));
        assert_eq!(decode(&good[..20]), Err(WireError::Truncated { bytes: 20 }));
        assert_eq!(decode(&head(99, wire::WIRE_VERSION)), Err(WireError::Kind { kind: 99 }));
        assert_eq!(decode(&head(wire::EVENT_RUNNING, 77)), Err(WireError::Version { found: 77 }));
    }
}
