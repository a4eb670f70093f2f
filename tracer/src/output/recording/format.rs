//! The forms of a recording, by the names of their files.

use std::io;
use std::path::{Path, PathBuf};

use super::{jsonl, parquet, perfetto, pprof};
use crate::recording::{Encode, Header, gtr};

/// A form in which a recording can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// gotracer's own: compact, fast, readable after a crash
    Gtr,
    /// One JSON object a line
    Jsonl,
    /// The same, compressed by zstd
    #[value(name = "jsonl.zst")]
    JsonlZst,
    /// Apache Parquet: events, and in a file beside it goroutines
    Parquet,
    /// A Perfetto trace
    Pftrace,
    /// A pprof profile: goroutines, and time blocked, by stack and reason
    #[value(name = "pb.gz")]
    PbGz,
}

/// A file whose name says nothing of its form.
#[derive(Debug, thiserror::Error)]
#[error("the name of {path} does not say what to write: end it in {}, or give --format", Format::extensions())]
pub struct FormatError {
    path: PathBuf,
}

impl Format {
    const ALL: [Self; 6] = [Self::Gtr, Self::Jsonl, Self::JsonlZst, Self::Parquet, Self::Pftrace, Self::PbGz];

    /// The form that a file's name asks for.
    ///
    /// # Errors
    ///
    /// If it asks for none.
    pub fn of(path: &Path) -> Result<Self, FormatError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let found = Self::ALL.into_iter().find(|format| {
            let stem = name.strip_suffix(format.extension()).and_then(|stem| stem.strip_suffix('.'));
            stem.is_some_and(|stem| !stem.is_empty())
        });
        found.ok_or_else(|| FormatError { path: path.to_owned() })
    }

    /// What its files end in, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Gtr => "gtr",
            Self::Jsonl => "jsonl",
            Self::JsonlZst => "jsonl.zst",
            Self::Parquet => "parquet",
            Self::Pftrace => "pftrace",
            Self::PbGz => "pb.gz",
        }
    }

    fn extensions() -> String {
        let mut all: Vec<String> = Self::ALL.iter().map(|format| format!(".{}", format.extension())).collect();
        let last = all.pop().unwrap_or_default();
        format!("{} or {last}", all.join(", "))
    }

    /// The file beside `path` that this form needs.
    #[must_use]
    pub fn beside(self, path: &Path) -> Option<PathBuf> {
        match self {
            Self::Parquet => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let stem = name.strip_suffix(".parquet").unwrap_or(&name);
                Some(path.with_file_name(format!("{stem}.goroutines.parquet")))
            }
            _ => None,
        }
    }

    /// What writes it.
    ///
    /// # Errors
    ///
    /// If a library that makes the form fails.
    pub fn encoder(self, header: &Header) -> io::Result<Box<dyn Encode>> {
        Ok(match self {
            Self::Gtr => Box::new(gtr::Encoder::new(header.clone())?),
            Self::Jsonl => Box::new(jsonl::Encoder::new(header.clone())),
            Self::JsonlZst => Box::new(jsonl::Encoder::compressed(header.clone())?),
            Self::Parquet => Box::new(parquet::Encoder::new(header.clone())?),
            Self::Pftrace => Box::new(perfetto::Encoder::new(header.clone())),
            Self::PbGz => Box::new(pprof::Encoder::new(header.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_asks_for_a_form() {
        for format in Format::ALL {
            let path = PathBuf::from(format!("/tmp/a.b.{}", format.extension()));
            assert_eq!(Format::of(&path).expect("is known"), format);
        }
        for unknown in ["a", "gtr", ".gtr", "a.txt", "a.zst", "a.gz", "a.GTR", "/"] {
            let error = Format::of(Path::new(unknown)).expect_err(unknown).to_string();
            assert!(error.contains(".pftrace or .pb.gz"), "{error}");
        }
        let beside = Format::Parquet.beside(Path::new("/tmp/a.parquet"));
        assert_eq!(beside, Some(PathBuf::from("/tmp/a.goroutines.parquet")));
    }
}
