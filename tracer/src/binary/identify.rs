//! What a program without Go build info is instead.

use super::error::BinaryError;
use super::image::Image;

/// Bytes of a packed program's start in which UPX leaves its name.
const UPX_SEARCH: u64 = 4096;

/// The error that says most about `image`, which has no build info.
pub(crate) fn not_go(image: &Image) -> BinaryError {
    let start = image.segments().first().map(|s| (s.start, s.file_size.min(UPX_SEARCH)));
    let packed = start.and_then(|(pc, len)| image.read(pc, len).ok());
    if packed.is_some_and(|bytes| bytes.windows(4).any(|w| w == b"UPX!")) {
        return BinaryError::Packed;
    }
    let mut error = BinaryError::NotGo;
    // A table that cannot be read says nothing either way.
    let _unreadable = image.each_symbol(|name, _| {
        if name.starts_with(b"tinygo_") {
            error = BinaryError::TinyGo;
        } else if name.starts_with(b"__go_init_main") {
            error = BinaryError::GccGo;
        }
        matches!(error, BinaryError::NotGo)
    });
    if matches!(error, BinaryError::NotGo) && needs_libgo(image) {
        error = BinaryError::GccGo;
    }
    error
}

/// gccgo's runtime is a shared library, `libgo.so.N`, whose name stands in the dynamic strings.
fn needs_libgo(image: &Image) -> bool {
    let Some(strings) = image.section(".dynstr") else { return false };
    let names = image.read(strings.start, strings.size.min(1 << 20)).unwrap_or_default();
    names.split(|&b| b == 0).any(|name| name.starts_with(b"libgo.so."))
}
