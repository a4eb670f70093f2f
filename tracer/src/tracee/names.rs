//! Names for a target's addresses and numbers, each looked up once.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;

use super::{LoadBias, Program};
use crate::output::{Names, SiteName};
use crate::units::{Pc, RemoteAddr};

/// The names of one program, loaded somewhere.
#[derive(Debug)]
pub struct TraceeNames {
    program: Program,
    bias: Option<LoadBias>,
    sites: HashMap<RemoteAddr, SiteName>,
    functions: HashMap<RemoteAddr, Arc<str>>,
}

/// So many names of each kind are kept. A program has fewer `go` statements; hostile memory can name more.
const MOST: usize = 1 << 16;

impl TraceeNames {
    /// Names for `program`.
    #[must_use]
    pub fn new(program: Program, bias: Option<LoadBias>) -> Self {
        Self { program, bias, sites: HashMap::new(), functions: HashMap::new() }
    }

    /// Where the program is loaded, when that becomes known.
    pub fn set_bias(&mut self, bias: Option<LoadBias>) {
        if self.bias != bias {
            self.bias = bias;
            self.sites.clear();
            self.functions.clear();
        }
    }

    fn pc(&self, address: RemoteAddr) -> Option<Pc> {
        self.bias.map(|bias| bias.pc(address))
    }
}

impl Names for TraceeNames {
    fn site(&mut self, gopc: RemoteAddr) -> SiteName {
        if let Some(name) = self.sites.get(&gopc) {
            return name.clone();
        }
        let functions = self.program.binary.functions();
        // gopc is the return address: the `go` statement is the instruction before it.
        let name = self.pc(gopc).and_then(|pc| {
            let pc = Pc(pc.0.checked_sub(1)?);
            let function = functions.find(pc)?;
            let (file, line) = function.line(pc).unwrap_or_default();
            Some(SiteName { function: function.name().into(), file: file.into(), line })
        });
        let name = name.unwrap_or_else(|| SiteName { function: unnamed(gopc), file: "".into(), line: 0 });
        if self.sites.len() < MOST {
            self.sites.insert(gopc, name.clone());
        }
        name
    }

    fn function(&mut self, startpc: RemoteAddr) -> Arc<str> {
        if let Some(name) = self.functions.get(&startpc) {
            return Arc::clone(name);
        }
        let found = self.pc(startpc).and_then(|pc| self.program.binary.functions().find(pc));
        let name = found.map_or_else(|| unnamed(startpc), |function| function.name().into());
        if self.functions.len() < MOST {
            self.functions.insert(startpc, Arc::clone(&name));
        }
        name
    }

    fn reason(&self, reason: u8) -> Cow<'_, str> {
        let name = self.program.wait_reasons.name(reason).map(Cow::Borrowed);
        name.unwrap_or_else(|| Cow::Owned(format!("wait reason {reason}")))
    }
}

fn unnamed(address: RemoteAddr) -> Arc<str> {
    if address.0 == 0 { "(none)".into() } else { address.to_string().into() }
}
