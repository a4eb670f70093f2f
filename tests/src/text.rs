//! Whether a process runs the code that its executable file holds: a breakpoint shows as a difference.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

/// The file offsets at which the executable memory of the process differs from its executable.
///
/// # Errors
/// When the process is gone or may not be read.
pub fn changed_bytes(pid: u32) -> Result<Vec<u64>> {
    let of_process = |name: &str| format!("/proc/{pid}/{name}");
    let executable = fs::read_link(of_process("exe"))?;
    let maps = fs::read_to_string(of_process("maps"))?;
    let memory = File::open(of_process("mem"))?;
    let file = File::open(of_process("exe"))?;
    let mut changed = Vec::new();
    for line in maps.lines() {
        let Some(mapping) = Mapping::parse(line) else { continue };
        if !mapping.executable || mapping.path != executable.to_string_lossy() {
            continue;
        }
        let size = usize::try_from(mapping.end - mapping.start)?;
        let (mut in_memory, mut in_file) = (vec![0; size], vec![0; size]);
        memory.read_exact_at(&mut in_memory, mapping.start).context("cannot read the process's code")?;
        // The last page of the mapping may reach beyond the file's end.
        read_to_end_at(&file, &mut in_file, mapping.offset)?;
        let differs = in_memory.iter().zip(&in_file).enumerate().filter(|(_, (memory, file))| memory != file);
        changed.extend(differs.map(|(at, _)| mapping.offset + at as u64));
    }
    Ok(changed)
}

fn read_to_end_at(file: &File, mut into: &mut [u8], mut offset: u64) -> Result<()> {
    while !into.is_empty() {
        let n = file.read_at(into, offset)?;
        if n == 0 {
            break;
        }
        into = &mut into[n..];
        offset += n as u64;
    }
    Ok(())
}

struct Mapping<'a> {
    start: u64,
    end: u64,
    executable: bool,
    offset: u64,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    /// `00400000-00480000 r-xp 00000000 fe:00 1234   /path`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let offset = fields.next()?;
        let path = fields.nth(2)?.trim_start();
        let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
        Some(Self {
            start: number(start)?,
            end: number(end)?,
            executable: permissions.contains('x'),
            offset: number(offset)?,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::changed_bytes;

    #[test]
    fn a_process_without_probes_runs_what_its_file_holds() -> anyhow::Result<()> {
        assert_eq!(changed_bytes(std::process::id())?, Vec::<u64>::new());
        Ok(())
    }
}
