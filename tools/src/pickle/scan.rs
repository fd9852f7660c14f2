//! Lists what a pickle would import and call, without building anything.
//!
//! Unlike [`Pickle::parse`](super::Pickle::parse), a scan does not stop at what is refused: it walks on through every
//! opcode of protocols 0 to 5 and keeps track of where globals go, so that a hostile pickle shows all it has. It is
//! there to inform. Whether a file is read is never decided by it.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;

use super::allow;
use super::machine::is_understood;
use super::opcode::{Arg, Instruction, decode};
use crate::error::printable;

/// Globals and refusals listed, at most; more are counted only.
const MAX_LISTED: usize = 1 << 12;

/// What a pickle would import and call.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scan {
    /// Number of instructions.
    pub n_instructions: u64,
    /// Highest protocol that the pickle declares.
    pub protocol: u64,
    /// Everything that would be imported, in the order of its first use.
    pub globals: Vec<GlobalUse>,
    /// Why the pickle is refused; empty if the scan found no reason.
    pub refused: Vec<String>,
}

/// A global that a pickle names, and what it would do with it.
#[derive(Clone, Debug, Serialize)]
pub struct GlobalUse {
    /// Module that would be imported.
    pub module: String,
    /// Attribute of the module, perhaps with dots.
    pub name: String,
    /// Whether it stands on the allow-list.
    pub allowed: bool,
    /// Byte offset of its first use.
    pub at: usize,
    /// How often it is named.
    pub named: u64,
    /// How often it would be called with arguments (REDUCE, INST, OBJ).
    pub reduce: u64,
    /// How often an object of it would be made (NEWOBJ, NEWOBJ_EX).
    pub newobj: u64,
    /// How often the state of what it gave would be set (BUILD).
    pub build: u64,
}

impl GlobalUse {
    /// How often code of this global would run.
    pub fn n_calls(&self) -> u64 {
        self.reduce + self.newobj + self.build
    }
}

/// Scans one or several pickles that stand one after the other in `bytes`.
pub fn scan(bytes: &[u8]) -> Scan {
    if u32::try_from(bytes.len()).is_err() {
        return Scan { refused: vec!["pickle is larger than 4 GiB".to_owned()], ..Scan::default() };
    }
    let mut scanner = Scanner {
        bytes,
        scan: Scan::default(),
        by_name: HashMap::new(),
        stack: Vec::new(),
        memo: Vec::new(),
        n_memo: 0,
        most_slots: bytes.len() / 64 + 4096,
        most_memo: bytes.len() / 8 + 4096,
        refused_opcodes: [false; 256],
    };
    let mut at = 0;
    while at < bytes.len() {
        match decode(bytes, at) {
            Ok(instruction) => {
                scanner.step(&instruction);
                at = instruction.next;
                if instruction.code == b'.' && at < bytes.len() {
                    scanner.refuse(format!(
                        "{} bytes follow the end of the pickle at byte {at}",
                        bytes.len() - at
                    ));
                }
            }
            Err(error) => {
                scanner.refuse(error.to_string());
                break;
            }
        }
    }
    scanner.scan
}

/// What the scan knows of a value.
#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Other,
    /// Text at this place, of this length.
    Str(u32, u16),
    Global(u32),
    /// What a call of the global gives.
    Made(u32),
}

/// Names are short; of a longer text nothing needs to be known.
fn text(range: &Range<usize>) -> Slot {
    u16::try_from(range.len()).map_or(Slot::Other, |len| Slot::Str(range.start as u32, len))
}

/// How a global is used.
#[derive(Clone, Copy)]
enum Use {
    Reduce,
    NewObj,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    scan: Scan,
    by_name: HashMap<(String, String), usize>,
    stack: Vec<Slot>,
    memo: Vec<Slot>,
    n_memo: u64,
    most_slots: usize,
    most_memo: usize,
    refused_opcodes: [bool; 256],
}

impl Scanner<'_> {
    fn step(&mut self, instruction: &Instruction) {
        self.scan.n_instructions += 1;
        if !is_understood(instruction.code) && !self.refused_opcodes[usize::from(instruction.code)] {
            self.refused_opcodes[usize::from(instruction.code)] = true;
            self.refuse(format!("{}: opcode is not one that a checkpoint needs", instruction.place()));
        }
        match (instruction.code, &instruction.arg) {
            (0x80, &Arg::Unsigned(version)) => self.scan.protocol = self.scan.protocol.max(version),
            (0x95, _) => {}
            (b'.', _) => {
                self.stack.clear();
                self.memo.clear();
                self.n_memo = 0;
            }
            (b'(', _) => self.push(Slot::Mark),
            (b'0', _) => {
                self.pop();
            }
            (b'1' | b'e' | 0x90 | b'u', _) => {
                self.pop_mark();
            }
            (b'2', _) => {
                let top = self.top();
                self.push(top);
            }
            (b'a', _) => {
                self.pop();
            }
            (b's', _) => {
                self.pop();
                self.pop();
            }
            (b't' | b'l' | b'd' | 0x91, _) => {
                self.pop_mark();
                self.push(Slot::Other);
            }
            (0x85..=0x87, _) => {
                for _ in 0x84..instruction.code {
                    self.pop();
                }
                self.push(Slot::Other);
            }
            (b'X' | 0x8c | 0x8d | b'V' | b'U' | b'T', Arg::Bytes(range)) => {
                self.push(text(range));
            }
            // Protocol 0 writes strings with quotes around them.
            (b'S', Arg::Bytes(range)) => {
                let inner = if range.len() >= 2 { range.start + 1..range.end - 1 } else { range.clone() };
                self.push(text(&inner));
            }
            (b'q' | b'r', &Arg::Unsigned(idx)) => self.memoize(idx),
            (b'p', Arg::Bytes(range)) => {
                if let Some(idx) = self.number(range.clone()) {
                    self.memoize(idx);
                }
            }
            (0x94, _) => self.memoize(self.n_memo),
            (b'h' | b'j', &Arg::Unsigned(idx)) => self.recall(idx),
            (b'g', Arg::Bytes(range)) => match self.number(range.clone()) {
                Some(idx) => self.recall(idx),
                None => self.push(Slot::Other),
            },
            (b'c', Arg::TwoLines(module, name)) => {
                let slot = self.global(module.clone(), name.clone(), instruction);
                self.push(slot);
            }
            (b'i', Arg::TwoLines(module, name)) => {
                self.pop_mark();
                let slot = self.global(module.clone(), name.clone(), instruction);
                self.call(slot, Use::Reduce, instruction);
            }
            (0x93, _) => {
                let (name, module) = (self.pop(), self.pop());
                let slot = match (module, name) {
                    (Slot::Str(m, m_len), Slot::Str(n, n_len)) => {
                        let (m, n) = (m as usize, n as usize);
                        self.global(m..m + usize::from(m_len), n..n + usize::from(n_len), instruction)
                    }
                    _ => {
                        self.refuse(format!("{}: name of a global is not a string", instruction.place()));
                        Slot::Other
                    }
                };
                self.push(slot);
            }
            (b'R', _) => {
                self.pop();
                let callee = self.pop();
                self.call(callee, Use::Reduce, instruction);
            }
            (b'o', _) => {
                let class = self.pop_mark();
                self.call(class, Use::Reduce, instruction);
            }
            (0x81, _) => {
                self.pop();
                let class = self.pop();
                self.call(class, Use::NewObj, instruction);
            }
            (0x92, _) => {
                self.pop();
                self.pop();
                let class = self.pop();
                self.call(class, Use::NewObj, instruction);
            }
            (b'b', _) => {
                self.pop();
                if let Slot::Made(idx) | Slot::Global(idx) = self.top()
                    && let Some(global) = self.scan.globals.get_mut(idx as usize)
                {
                    global.build += 1;
                }
            }
            (b'Q', _) => {
                self.pop();
                self.push(Slot::Other);
            }
            (0x98, _) => {}
            _ => self.push(Slot::Other),
        }
    }

    fn refuse(&mut self, reason: String) {
        if self.scan.refused.len() < MAX_LISTED {
            self.scan.refused.push(reason);
        }
    }

    fn push(&mut self, slot: Slot) {
        if self.stack.len() >= self.most_slots {
            self.refuse(format!("pickle needs a stack of more than {} values", self.most_slots));
            self.stack.clear();
        }
        self.stack.push(slot);
    }

    fn top(&self) -> Slot {
        self.stack.last().copied().unwrap_or(Slot::Other)
    }

    /// A mark is left where it is: a pickle that underflows is refused elsewhere.
    fn pop(&mut self) -> Slot {
        match self.stack.last() {
            None | Some(Slot::Mark) => Slot::Other,
            Some(_) => self.stack.pop().unwrap_or(Slot::Other),
        }
    }

    /// Pops down to the last mark and returns the value right above it.
    fn pop_mark(&mut self) -> Slot {
        let mark = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark)).unwrap_or(0);
        let above = self.stack.get(mark + 1).copied().unwrap_or(Slot::Other);
        self.stack.truncate(mark);
        above
    }

    /// Entries that are numbered out of all proportion are left out.
    fn memoize(&mut self, idx: u64) {
        self.n_memo += 1;
        let Some(idx) = usize::try_from(idx).ok().filter(|&idx| idx < self.most_memo) else { return };
        if idx >= self.memo.len() {
            self.memo.resize(idx + 1, Slot::Other);
        }
        self.memo[idx] = self.top();
    }

    fn recall(&mut self, idx: u64) {
        let slot =
            usize::try_from(idx).ok().and_then(|idx| self.memo.get(idx).copied()).unwrap_or(Slot::Other);
        self.push(slot);
    }

    fn number(&self, range: Range<usize>) -> Option<u64> {
        std::str::from_utf8(&self.bytes[range]).ok()?.trim().parse().ok()
    }

    fn global(&mut self, module: Range<usize>, name: Range<usize>, instruction: &Instruction) -> Slot {
        let text = |range: Range<usize>| printable(&String::from_utf8_lossy(&self.bytes[range]));
        let key = (text(module.clone()), text(name.clone()));
        if let Some(&idx) = self.by_name.get(&key) {
            self.scan.globals[idx].named += 1;
            return Slot::Global(idx as u32);
        }
        if self.scan.globals.len() >= MAX_LISTED {
            return Slot::Other;
        }
        let exact = |range: Range<usize>| std::str::from_utf8(&self.bytes[range]).unwrap_or_default();
        let verdict = allow::lookup(exact(module), exact(name));
        let allowed = verdict.is_ok();
        if let Err(reason) = verdict {
            self.refuse(format!("{}: {reason}", instruction.place()));
        }
        let idx = self.scan.globals.len();
        let (module, name) = key.clone();
        let at = instruction.at;
        self.scan.globals.push(GlobalUse {
            module,
            name,
            allowed,
            at,
            named: 1,
            reduce: 0,
            newobj: 0,
            build: 0,
        });
        self.by_name.insert(key, idx);
        Slot::Global(idx as u32)
    }

    /// Counts a call and pushes what it gives.
    fn call(&mut self, callee: Slot, how: Use, instruction: &Instruction) {
        let made = match callee {
            Slot::Global(idx) => {
                if let Some(global) = self.scan.globals.get_mut(idx as usize) {
                    match how {
                        Use::Reduce => global.reduce += 1,
                        Use::NewObj => global.newobj += 1,
                    }
                }
                Slot::Made(idx)
            }
            Slot::Made(idx) => {
                let (module, name) =
                    (&self.scan.globals[idx as usize].module, &self.scan.globals[idx as usize].name);
                self.refuse(format!("{}: would call what `{module} {name}` returned", instruction.place()));
                Slot::Made(idx)
            }
            _ => {
                self.refuse(format!("{}: would call something other than a global", instruction.place()));
                Slot::Other
            }
        };
        self.push(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(scan: &Scan) -> Vec<String> {
        scan.globals.iter().map(|global| format!("{} {}", global.module, global.name)).collect()
    }

    #[test]
    fn calls_are_counted_by_what_is_called() {
        let scan = scan(b"\x80\x02ccollections\nOrderedDict\nq\0)Rh\0)R\x86.");
        assert!(scan.refused.is_empty(), "{:?}", scan.refused);
        assert_eq!(names(&scan), ["collections OrderedDict"]);
        let global = &scan.globals[0];
        assert_eq!((global.named, global.reduce, global.newobj, global.build), (1, 2, 0, 0));
        assert_eq!((scan.protocol, scan.n_instructions), (2, 10));
    }

    #[test]
    fn the_scan_goes_on_behind_what_is_refused() {
        let scan = scan(b"cos\nsystem\n(S'true'\ntR0cbuiltins\neval\n(S'1'\ntR.cposix\nsystem\n.");
        assert_eq!(names(&scan), ["os system", "builtins eval", "posix system"]);
        assert_eq!((scan.globals[0].reduce, scan.globals[1].reduce, scan.globals[2].reduce), (1, 1, 0));
        assert!(scan.refused.iter().any(|reason| reason.contains("`os system`")));
        assert!(
            scan.refused.iter().any(|reason| reason.contains("opcode STRING at byte 12")),
            "{:?}",
            scan.refused
        );
        assert!(scan.refused.iter().any(|reason| reason.contains("follow the end")));
    }

    #[test]
    fn names_that_come_from_the_stack_or_the_memo_are_found() {
        let scan = scan(b"\x8c\x02os\x94\x8c\x06system\x94h\0h\x01\x93\x8c\x04true\x85R.");
        assert_eq!(names(&scan), ["os system"]);
        assert_eq!(scan.globals[0].reduce, 1);
    }

    #[test]
    fn old_calls_are_found() {
        let scan = scan(b"(S'true'\nios\nsystem\n.");
        assert_eq!((names(&scan), scan.globals[0].reduce), (vec!["os system".to_owned()], 1));
        let scan = super::scan(b"(cos\nsystem\nS'true'\no.");
        assert_eq!((names(&scan), scan.globals[0].reduce), (vec!["os system".to_owned()], 1));
    }

    #[test]
    fn a_chain_of_calls_is_refused() {
        let scan = scan(b"ccollections\nOrderedDict\n)R)R.");
        assert!(
            scan.refused[0].contains("would call what `collections OrderedDict` returned"),
            "{:?}",
            scan.refused
        );
    }
}
