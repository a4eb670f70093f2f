//! The programs of the eBPF object that stand on uprobes, loaded when each is first needed.
//!
//! In: the object, and the maps that aya has made of it. Out: a loaded [`Program`], to be attached in the best way that this
//! kernel has. aya 0.14 loads such programs for perf events alone; a multi-uprobe link takes only those that were loaded for
//! it, is cheaper at each hit, and goes without waiting for others that are going, too.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use aya::maps::{Map, MapData};
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError};
use aya_obj::{Object, VerifierLog};

use super::bpf::{self, By};
use super::features::Feature;

/// A loaded program.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
    by: By,
}

impl Program {
    /// How it is to be attached.
    pub(super) fn by(&self) -> By {
        self.by
    }

    /// The same program once more.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, by: self.by })
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All of an object's, loaded or not.
pub(super) struct Programs {
    object: Object,
    by: By,
    loaded: HashMap<&'static str, Program>,
}

impl Programs {
    /// Those of `bytes`, which `ebpf` was made of. Its maps must stay open for as long as programs are to be loaded: what refers to
    /// them does so by descriptor.
    ///
    /// # Errors
    ///
    /// If it is no object, or refers to what there is not.
    pub(super) fn new(bytes: &[u8], ebpf: &Ebpf) -> Result<Self, EbpfError> {
        let mut object = Object::parse(bytes)?;
        let maps: HashMap<&str, RawFd> =
            ebpf.maps().filter_map(|(name, map)| Some((name, data(map)?.fd().as_fd().as_raw_fd()))).collect();
        let wanted = std::mem::take(&mut object.maps);
        let code = object.functions.keys().map(|(section, _)| *section).collect();
        let made = wanted.iter().filter_map(|(name, map)| Some((name.as_str(), *maps.get(name.as_str())?, map)));
        object.relocate_maps(made, &code)?;
        object.relocate_calls(&code)?;
        object.sanitize_functions(aya::features());
        let by = if Feature::UprobeMulti.find().is_yes() { By::MultiLink } else { By::PerfEvent };
        Ok(Self { object, by, loaded: HashMap::new() })
    }

    /// The program of this name.
    ///
    /// # Errors
    ///
    /// If there is none, or the kernel refuses it: then with what the verifier says.
    pub(super) fn get(&mut self, name: &'static str) -> Result<&Program, ProgramError> {
        if !self.loaded.contains_key(name) {
            let program = self.load(name)?;
            self.loaded.insert(name, program);
        }
        self.loaded.get(name).ok_or(ProgramError::NotLoaded)
    }

    fn load(&self, name: &'static str) -> Result<Program, ProgramError> {
        /// More than the verifier has ever said of one of ours; what does not fit it leaves out.
        const LOG: usize = 1 << 20;
        let code = self.object.programs.get(name).and_then(|p| self.object.functions.get(&p.function_key()));
        let code = &code.ok_or(ProgramError::NotLoaded)?.instructions;
        let c_name = CString::new(name).map_err(|_| ProgramError::InvalidName { name: name.to_owned() })?;
        match bpf::load_uprobe(&c_name, code, self.by, None) {
            Ok(fd) => Ok(Program { fd, by: self.by }),
            Err(io_error) => {
                let mut log = vec![0; LOG];
                // The reason is the first refusal's.
                let _again = bpf::load_uprobe(&c_name, code, self.by, Some(&mut log));
                let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
                let verifier_log = VerifierLog::new(String::from_utf8_lossy(text).into_owned());
                Err(ProgramError::LoadError { io_error, verifier_log })
            }
        }
    }
}

/// The map itself, of the kinds that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
