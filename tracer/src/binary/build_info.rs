//! Go's build info: the version, the module, and the settings of the build.
//!
//! In: the image. Out: [`BuildInfo`]. What the linker writes:
//! <https://github.com/golang/go/blob/go1.27.3/src/debug/buildinfo/buildinfo.go#L154-L186> (inline strings since 1.18,
//! pointers to them before).

use super::bytes::u64_at;
use super::error::BinaryError;
use super::image::Image;
use super::version::GoVersion;
use crate::units::Pc;

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The blob is aligned so: <https://github.com/golang/go/blob/go1.27.3/src/debug/buildinfo/buildinfo.go#L60-L63>.
const ALIGN: u64 = 16;
const HEADER: u64 = 32;
/// The first bytes of each writable segment that are searched for the blob where no section names it.
const SEARCH: u64 = 256 << 20;
/// Bytes searched at a time.
const CHUNK: u64 = 1 << 20;
/// The longest version or module text believed, in bytes.
const TEXT_LIMIT: u64 = 16 << 20;

/// What the build info says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// The toolchain's version, as written.
    pub go_version: String,
    /// The import path of the main package; empty for a build without modules.
    pub path: String,
    /// The path of the main module; empty for a build without modules.
    pub module: String,
    /// The version of the main module: a tag, a pseudo-version, `(devel)`, or empty.
    pub module_version: String,
    /// The build settings in the file's order: `-buildmode`, `CGO_ENABLED`, `vcs.revision`, ...
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// Reads the build info of `image`; `None` where there is none.
    ///
    /// # Errors
    /// [`BinaryError::GoTooOld`] for the pointer format of Go 1.17 and older, [`BinaryError::Corrupt`] for a blob whose
    /// strings end early.
    pub fn read(image: &Image) -> Result<Option<Self>, BinaryError> {
        let corrupt = |why| BinaryError::corrupt(".go.buildinfo", why);
        let Some(start) = locate(image)? else { return Ok(None) };
        let header = image.read(start, HEADER).map_err(|_| corrupt("its header is cut short"))?;
        let flags = header.get(15).copied().unwrap_or_default();
        if flags & 2 == 0 {
            let version = old_version(image, &header).unwrap_or_else(|| "a Go release before 1.18".to_owned());
            return Err(BinaryError::GoTooOld { version });
        }
        let (version, next) = string(image, Pc(start.0.wrapping_add(HEADER))).ok_or(corrupt("no version string"))?;
        let (module, _) = string(image, next).ok_or(corrupt("no module string"))?;
        let mut info = Self { go_version: String::from_utf8_lossy(&version).into_owned(), ..Self::default() };
        // Sixteen bytes of framing stand on either side: cmd/go/internal/modload's infoStart and infoEnd.
        if module.len() >= 33
            && let Some(text) = module.get(16..module.len() - 16)
        {
            info.take_module(&String::from_utf8_lossy(text));
        }
        Ok(Some(info))
    }

    /// The version in numbers.
    #[must_use]
    pub fn version(&self) -> Option<GoVersion> {
        GoVersion::parse(&self.go_version)
    }

    /// A build setting such as `CGO_ENABLED`, `-buildmode`, `GOEXPERIMENT` or `-ldflags`.
    #[must_use]
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Lines of tab-separated words; see
    /// <https://github.com/golang/go/blob/go1.27.3/src/runtime/debug/mod.go#L100-L170>. Unknown lines are passed over.
    fn take_module(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split('\t');
            match words.next() {
                Some("path") => words.next().unwrap_or_default().clone_into(&mut self.path),
                Some("mod") => {
                    words.next().unwrap_or_default().clone_into(&mut self.module);
                    words.next().unwrap_or_default().clone_into(&mut self.module_version);
                }
                Some("build") => self.settings.extend(line.split_once('\t').and_then(|(_, rest)| setting(rest))),
                _ => {}
            }
        }
    }
}

/// `key=value`, either of which may be a quoted Go string.
fn setting(text: &str) -> Option<(String, String)> {
    let (key, value) = match text.strip_prefix('"') {
        Some(rest) => {
            let end = rest.find("\"=")?;
            (text.get(..end + 2)?, rest.get(end + 2..)?)
        }
        None => text.split_once('=')?,
    };
    Some((unquote(key), unquote(value)))
}

/// Undoes Go's `strconv.Quote` as far as build settings use it; text that is not quoted stays as it is.
fn unquote(text: &str) -> String {
    if let Some(raw) = text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
        return raw.to_owned();
    }
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else { return text.to_owned() };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

/// The address of the blob: at its section, else somewhere in the writable segments (the linker puts it early, but behind
/// the relocated read-only data of a position-independent program).
fn locate(image: &Image) -> Result<Option<Pc>, BinaryError> {
    if let Some(section) = image.section(".go.buildinfo") {
        return search(image, section.start, section.size);
    }
    for segment in image.segments().iter().filter(|s| s.writable) {
        if let Some(found) = search(image, segment.start, segment.file_size.min(SEARCH))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn search(image: &Image, start: Pc, len: u64) -> Result<Option<Pc>, BinaryError> {
    let mut at = start.0.wrapping_neg() % ALIGN;
    while at < len {
        let chunk = (len - at).min(CHUNK);
        let bytes = image.read(Pc(start.0.wrapping_add(at)), chunk)?;
        if let Some(i) = bytes.chunks(ALIGN as usize).position(|line| line.starts_with(MAGIC)) {
            return Ok(Some(Pc(start.0.wrapping_add(at + i as u64 * ALIGN))));
        }
        at += chunk;
    }
    Ok(None)
}

/// A string with its length before it as a varint, and the address behind it.
fn string(image: &Image, at: Pc) -> Option<(Vec<u8>, Pc)> {
    let (mut len, mut used) = (0u64, 0u64);
    loop {
        let byte = *image.read(Pc(at.0.checked_add(used)?), 1).ok()?.first()?;
        len |= u64::from(byte & 0x7f).checked_shl(7 * used as u32)?;
        used += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let start = Pc(at.0.checked_add(used)?);
    if len > TEXT_LIMIT {
        return None;
    }
    Some((image.read(start, len).ok()?, Pc(start.0.checked_add(len)?)))
}

/// The version behind the pointer format of Go 1.13 to 1.17: the header holds the address of a Go string.
fn old_version(image: &Image, header: &[u8]) -> Option<String> {
    let at = image.pointers(Pc(u64_at(header, 16)?), 2).ok()?;
    let (start, len) = (at.first()?, at.get(1)?.0);
    let text = image.read(*start, len.min(100)).ok()?;
    let text = String::from_utf8(text).ok()?;
    text.starts_with("go1.").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_quoted_and_not() {
        assert_eq!(setting("CGO_ENABLED=0"), Some(("CGO_ENABLED".into(), "0".into())));
        assert_eq!(setting("-ldflags=\"-s -w\""), Some(("-ldflags".into(), "-s -w".into())));
        assert_eq!(setting("\"a=b\"=\"x\\ty\""), Some(("a=b".into(), "x\ty".into())));
        assert_eq!(setting("-tags=`a b`"), Some(("-tags".into(), "a b".into())));
        assert_eq!(setting("nothing"), None);
        assert_eq!(setting("\"open"), None);
    }

    #[test]
    fn the_module_text() {
        let mut info = BuildInfo::default();
        info.take_module(
            "path\texample.com/x/cmd\nmod\texample.com/x\tv1.2.3\th1:abc=\ndep\ta\tb\nbuild\tGOOS=linux\n",
        );
        assert_eq!((info.path.as_str(), info.module.as_str()), ("example.com/x/cmd", "example.com/x"));
        assert_eq!(info.module_version, "v1.2.3");
        assert_eq!(info.setting("GOOS"), Some("linux"));
        assert_eq!(info.setting("GOARCH"), None);
    }
}
