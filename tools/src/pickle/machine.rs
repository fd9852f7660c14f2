//! Runs a pickle's instructions on inert data.
//!
//! Only the opcodes that PyTorch writes are understood. Every step is charged to a memory budget that grows with the
//! file, so a small file can't ask for a large amount of memory.

use std::ops::Range;
use std::sync::Arc;

use super::allow::{self, Kind};
use super::opcode::{Arg, Instruction, decode};
use super::value::{Arena, GlobalRef, Id, Items, Node, Pickle};
use crate::error::{Error, Result, printable};

/// Deepest nesting of containers and of open marks. A real checkpoint stays under 60.
const MAX_DEPTH: u16 = 512;
/// Longest string. Class names and file paths are what strings are for.
const MAX_STRING: usize = 1 << 20;
/// Instructions, at most. A checkpoint of the largest networks has about 400,000.
const MAX_INSTRUCTIONS: u64 = 1 << 26;
/// Memory for values that any file may use, however small it is.
const BUDGET_FLOOR: usize = 1 << 16;

/// The opcodes that [`run`] accepts.
const UNDERSTOOD: &[u8] = b"\x80\x95(.N\x88\x89)JKMG\x8aX\x8c]}\x8ft\x85\x86\x87ae\x90suqr\x94hjc\x93QR\x81b";

/// Whether this opcode is accepted at all.
pub(super) fn is_understood(code: u8) -> bool {
    UNDERSTOOD.contains(&code)
}

/// No value of a pickle that fits into memory has this number.
const NOT_SET: Id = Id(u32::MAX);

pub(super) fn run(bytes: Arc<Vec<u8>>, range: Range<usize>) -> Result<Pickle> {
    let shared = Arc::clone(&bytes);
    let Some(pickle) = shared.get(range.clone()) else {
        return Err(Error::corrupt("", "pickle lies outside the file"));
    };
    if u32::try_from(pickle.len()).is_err() {
        return Err(Error::limit("", "pickle is larger than 4 GiB"));
    }
    let mut machine = Machine {
        pickle,
        nodes: Arena::default(),
        depths: Vec::new(),
        globals: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        n_memo: 0,
        small_ints: [NOT_SET; 256],
        budget: Budget { spent: 0, limit: BUDGET_FLOOR.max(bytes.len()) },
    };
    for node in [Node::None, Node::Bool(false), Node::Bool(true), Node::Tuple { start: 0, len: 0 }] {
        machine.add(node, 0)?;
    }
    let mut at = 0;
    for _ in 0..MAX_INSTRUCTIONS {
        let instruction = decode(pickle, at)?;
        at = instruction.next;
        if instruction.code == b'.' {
            let root = machine.finish(at).map_err(|error| error.within(&instruction.place()))?;
            let n_bytes = machine.n_lasting_bytes();
            let Machine { nodes, globals, .. } = machine;
            return Ok(Pickle { bytes, range, nodes, globals, root, n_bytes });
        }
        machine.step(&instruction).map_err(|error| error.within(&instruction.place()))?;
    }
    Err(Error::limit(format!("byte {at}"), format!("pickle has more than {MAX_INSTRUCTIONS} instructions")))
}

struct Machine<'a> {
    pickle: &'a [u8],
    nodes: Arena,
    /// Nesting of each node, as far as it is known when the node is completed.
    depths: Vec<u16>,
    globals: Vec<GlobalRef>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: Vec<Id>,
    n_memo: usize,
    /// Values of one byte are made once.
    small_ints: [Id; 256],
    budget: Budget,
}

/// Memory for values: what is taken, and what may be taken.
struct Budget {
    spent: usize,
    limit: usize,
}

impl Budget {
    fn charge(&mut self, n_bytes: usize) -> Result<()> {
        self.replace(0, n_bytes)
    }

    /// A block of `new` bytes takes the place of one of `old` bytes; while it is filled, both are there.
    fn replace(&mut self, old: usize, new: usize) -> Result<()> {
        match self.spent.checked_add(new) {
            Some(peak) if peak <= self.limit => self.spent = peak - old,
            _ => {
                let message = format!("pickle's values take more than {} bytes of memory", self.limit);
                return Err(Error::limit("", message));
            }
        }
        Ok(())
    }

    /// Makes room for `n` more items in `items`.
    fn reserve<T>(&mut self, items: &mut Vec<T>, n: usize) -> Result<()> {
        let (len, capacity) = (items.len(), items.capacity());
        if n > capacity - len {
            let wanted = len.saturating_add(n).max(2 * capacity);
            self.replace(capacity * size_of::<T>(), wanted.saturating_mul(size_of::<T>()))?;
            items.reserve_exact(wanted - len);
        }
        Ok(())
    }
}

impl Machine<'_> {
    fn step(&mut self, instruction: &Instruction) -> Result<()> {
        match (instruction.code, &instruction.arg) {
            (0x80, &Arg::Unsigned(version)) => match version {
                0..=5 => Ok(()),
                _ => Err(Error::refused("", format!("pickle protocol {version} is not known"))),
            },
            (0x95, Arg::Unsigned(_)) => Ok(()), // FRAME: a hint on buffering
            (b'(', _) => self.mark(),
            (b'N', _) => self.push(Id::NONE),
            (0x88, _) => self.push(Id::TRUE),
            (0x89, _) => self.push(Id::FALSE),
            (b')', _) => self.push(Id::EMPTY_TUPLE),
            (b'J', &Arg::Signed(value)) => self.push_new(Node::Int(value), 0),
            (b'K', &Arg::Unsigned(value)) => self.small_int(value as u8),
            (b'M', &Arg::Unsigned(value)) => self.push_new(Node::Int(value as i64), 0),
            (b'G', &Arg::Float(value)) => self.push_new(Node::Float(value), 0),
            (0x8a, Arg::Bytes(range)) => self.push_new(long(&self.pickle[range.clone()]), 0),
            (b'X' | 0x8c, Arg::Bytes(range)) => self.string(range.clone()),
            (b']', _) => self.push_new(Node::List(Items::new()), 0),
            (b'}', _) => self.push_new(Node::Dict { ordered: false, items: Items::new() }, 0),
            (0x8f, _) => self.push_new(Node::Set(Items::new()), 0),
            (b't', _) => {
                let from = self.pop_mark()?;
                self.tuple(from)
            }
            (0x85..=0x87, _) => {
                let from = self.height_below(usize::from(instruction.code - 0x84))?;
                self.tuple(from)
            }
            (b'a', _) => self.append(1),
            (b'e' | 0x90, _) => {
                let n = self.stack.len() - self.pop_mark()?;
                self.append_as(n, instruction.code == 0x90)
            }
            (b's', _) => self.set_items(2),
            (b'u', _) => {
                let n = self.stack.len() - self.pop_mark()?;
                self.set_items(n)
            }
            (b'q' | b'r', &Arg::Unsigned(idx)) => self.memoize(idx, instruction.next),
            (0x94, _) => self.memoize(self.n_memo as u64, instruction.next),
            (b'h' | b'j', &Arg::Unsigned(idx)) => {
                let found = usize::try_from(idx).ok().and_then(|idx| self.memo.get(idx).copied());
                let id = found
                    .filter(|&id| id != NOT_SET)
                    .ok_or_else(|| Error::corrupt("", format!("memo has no entry {idx}")))?;
                self.push(id)
            }
            (b'c', Arg::TwoLines(module, name)) => self.global(module.clone(), name.clone()),
            (0x93, _) => self.stack_global(),
            (b'Q', _) => self.persistent(),
            (b'R', _) => self.reduce(),
            (0x81, _) => self.new_object(),
            (b'b', _) => self.build(),
            _ => Err(Error::refused("", "opcode is not one that a checkpoint needs")),
        }
    }

    /// What has been charged for more than the stack and the memo.
    fn n_lasting_bytes(&self) -> usize {
        let lists = self.stack.capacity() + self.memo.capacity();
        let passing = lists * size_of::<Id>() + self.depths.capacity() * size_of::<u16>();
        self.budget.spent.saturating_sub(passing)
    }

    fn finish(&mut self, at: usize) -> Result<Id> {
        if at != self.pickle.len() {
            return Err(Error::corrupt(
                "",
                format!("{} bytes follow the end of the pickle", self.pickle.len() - at),
            ));
        }
        match (self.stack.as_slice(), self.marks.is_empty()) {
            (&[root], true) => Ok(root),
            _ => Err(Error::corrupt("", "pickle ends with unfinished values")),
        }
    }

    // Memory and depth.

    fn add(&mut self, node: Node, depth: u16) -> Result<Id> {
        if depth > MAX_DEPTH {
            return Err(Error::limit("", format!("values nest deeper than {MAX_DEPTH}")));
        }
        self.budget.charge(size_of::<Node>())?;
        self.budget.reserve(&mut self.depths, 1)?;
        let id = self.nodes.push(node)?;
        self.depths.push(depth);
        Ok(id)
    }

    /// One more than the deepest of `ids`.
    fn depth_over(&self, ids: &[Id]) -> u16 {
        ids.iter().map(|id| self.depths[id.0 as usize]).max().map_or(0, |deepest| deepest + 1)
    }

    fn deepen(&mut self, id: Id, depth: u16) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::limit("", format!("values nest deeper than {MAX_DEPTH}")));
        }
        let own = &mut self.depths[id.0 as usize];
        *own = depth.max(*own);
        Ok(())
    }

    // The stack.

    fn push(&mut self, id: Id) -> Result<()> {
        self.budget.reserve(&mut self.stack, 1)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_new(&mut self, node: Node, depth: u16) -> Result<()> {
        let id = self.add(node, depth)?;
        self.push(id)
    }

    /// The height of the stack without its top `n`, which have to lie above the last mark.
    fn height_below(&self, n: usize) -> Result<usize> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let height = self.stack.len().checked_sub(n).filter(|&height| height >= floor);
        height.ok_or_else(|| {
            Error::corrupt(
                "",
                format!("needs {n} values on the stack, {} are there", self.stack.len() - floor),
            )
        })
    }

    fn pop(&mut self) -> Result<Id> {
        let height = self.height_below(1)?;
        let id = self.stack[height];
        self.stack.truncate(height);
        Ok(id)
    }

    fn top(&self) -> Result<Id> {
        self.height_below(1).map(|height| self.stack[height])
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= usize::from(MAX_DEPTH) {
            return Err(Error::limit("", format!("more than {MAX_DEPTH} open marks")));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_mark(&mut self) -> Result<usize> {
        self.marks.pop().ok_or_else(|| Error::corrupt("", "no mark is open"))
    }

    // Values.

    fn string(&mut self, range: Range<usize>) -> Result<()> {
        if range.len() > MAX_STRING {
            return Err(Error::limit(
                "",
                format!("string of {} bytes, {MAX_STRING} are the most", range.len()),
            ));
        }
        if std::str::from_utf8(&self.pickle[range.clone()]).is_err() {
            return Err(Error::corrupt("", "string is not UTF-8"));
        }
        self.push_new(Node::Str { start: range.start as u32, len: range.len() as u32 }, 0)
    }

    fn small_int(&mut self, value: u8) -> Result<()> {
        let mut id = self.small_ints[usize::from(value)];
        if id == NOT_SET {
            id = self.add(Node::Int(value.into()), 0)?;
            self.small_ints[usize::from(value)] = id;
        }
        self.push(id)
    }

    fn tuple(&mut self, from: usize) -> Result<()> {
        let items = &self.stack[from..];
        let depth = self.depth_over(items);
        let tuple = self.nodes.next_tuple(items.len())?;
        self.budget.reserve(self.nodes.pool(), items.len())?;
        self.nodes.pool().extend_from_slice(items);
        self.stack.truncate(from);
        self.push_new(tuple, depth)
    }

    fn append(&mut self, n: usize) -> Result<()> {
        self.append_as(n, false)
    }

    fn append_as(&mut self, n: usize, to_set: bool) -> Result<()> {
        let from = self.height_below(n)?;
        let depth = self.depth_over(&self.stack[from..]);
        let target = *self.stack[..from].last().ok_or_else(|| Error::corrupt("", "nothing to append to"))?;
        self.height_below(n + 1)?;
        let items = match self.nodes.get_mut(target) {
            Node::List(items) if !to_set => items,
            Node::Set(items) if to_set => items,
            _ => return Err(Error::refused("", "appends to something other than a list or set")),
        };
        if n > 0 {
            let items = items.grown();
            self.budget.reserve(items, n)?;
            items.extend_from_slice(&self.stack[from..]);
        }
        self.stack.truncate(from);
        self.deepen(target, depth)
    }

    fn set_items(&mut self, n: usize) -> Result<()> {
        if !n.is_multiple_of(2) {
            return Err(Error::corrupt("", "a key without its value"));
        }
        let from = self.height_below(n)?;
        self.height_below(n + 1)?;
        let depth = self.depth_over(&self.stack[from..]);
        let target = self.stack[from - 1];
        let Node::Dict { items, .. } = self.nodes.get_mut(target) else {
            return Err(Error::refused("", "sets items of something other than a dict"));
        };
        if n > 0 {
            let items = items.grown();
            self.budget.reserve(items, n / 2)?;
            items.extend(self.stack[from..].chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        self.stack.truncate(from);
        self.deepen(target, depth)
    }

    fn memoize(&mut self, idx: u64, next: usize) -> Result<()> {
        let id = self.top()?;
        // Every entry takes at least one instruction, so an honest index is smaller than the bytes read so far.
        if idx >= next as u64 {
            return Err(Error::limit("", format!("memo index {idx} after {next} bytes")));
        }
        let idx = idx as usize;
        if idx >= self.memo.len() {
            let more = idx + 1 - self.memo.len();
            self.budget.reserve(&mut self.memo, more)?;
            self.memo.resize(idx + 1, NOT_SET);
        }
        if std::mem::replace(&mut self.memo[idx], id) == NOT_SET {
            self.n_memo += 1;
        }
        Ok(())
    }

    // Globals and what would be calls.

    fn global(&mut self, module: Range<usize>, name: Range<usize>) -> Result<()> {
        let text = |range: &Range<usize>| std::str::from_utf8(&self.pickle[range.clone()]);
        let (Ok(module_text), Ok(name_text)) = (text(&module), text(&name)) else {
            return Err(Error::corrupt("", "name of a global is not UTF-8"));
        };
        let kind = allow::lookup(module_text, name_text).map_err(|reason| Error::refused("", reason))?;
        self.budget.reserve(&mut self.globals, 1)?;
        let idx = u32::try_from(self.globals.len()).map_err(|_| Error::limit("", "too many globals"))?;
        self.globals.push(GlobalRef { module, name, kind });
        self.push_new(Node::Global(idx), 0)
    }

    fn stack_global(&mut self) -> Result<()> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.nodes.get(module), self.nodes.get(name)) {
            (&Node::Str { start: m, len: m_len }, &Node::Str { start: n, len: n_len }) => {
                self.global(m as usize..m as usize + m_len as usize, n as usize..n as usize + n_len as usize)
            }
            _ => Err(Error::refused("", "name of a global is not a string")),
        }
    }

    /// A persistent id is a tuple: `"storage"`, the storage class, the key, the device, the number of elements.
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let is_storage = match self.nodes.tuple(id) {
            Some(items) if items.len() == 5 => match (self.nodes.get(items[0]), self.nodes.get(items[1])) {
                (&Node::Str { start, len }, &Node::Global(global)) => {
                    let start = start as usize;
                    &self.pickle[start..start + len as usize] == b"storage"
                        && matches!(self.globals[global as usize].kind, Kind::Storage(_))
                }
                _ => false,
            },
            _ => false,
        };
        if !is_storage {
            return Err(Error::refused("", "persistent id is not a tensor's storage"));
        }
        let depth = self.depth_over(&[id]);
        self.push_new(Node::Storage(id), depth)
    }

    fn callee(&self, id: Id) -> Result<(u32, Kind)> {
        match *self.nodes.get(id) {
            Node::Global(global) => Ok((global, self.globals[global as usize].kind)),
            _ => Err(Error::refused("", "would call something other than an allowed global")),
        }
    }

    fn shown(&self, global: u32) -> String {
        let global = &self.globals[global as usize];
        let text = |range: &Range<usize>| printable(&String::from_utf8_lossy(&self.pickle[range.clone()]));
        format!("global `{} {}`", text(&global.module), text(&global.name))
    }

    fn reduce(&mut self) -> Result<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let (global, kind) = self.callee(callee)?;
        let Some(items) = self.nodes.tuple(args) else {
            return Err(Error::refused("", format!("arguments for {} are not a tuple", self.shown(global))));
        };
        match kind {
            Kind::OrderedDict if items.is_empty() => {
                self.push_new(Node::Dict { ordered: true, items: Items::new() }, 0)
            }
            Kind::Set if items.is_empty() => self.push_new(Node::Set(Items::new()), 0),
            Kind::Set if items.len() == 1 => {
                let list = items[0];
                self.set_of(list)
            }
            Kind::Getattr => {
                self.check_getattr(items)?;
                self.object(global, args)
            }
            // Namespaces are written as a call without arguments, filled afterwards.
            Kind::Record if items.is_empty() => self.object(global, args),
            Kind::Size | Kind::RebuildTensor | Kind::RebuildParameter | Kind::Maker => {
                self.object(global, args)
            }
            _ => {
                Err(Error::refused("", format!("{} is not something to call like this", self.shown(global))))
            }
        }
    }

    fn set_of(&mut self, list: Id) -> Result<()> {
        let Node::List(items) = self.nodes.get(list) else {
            return Err(Error::refused("", "set of something other than a list"));
        };
        let items = items.as_slice();
        let depth = self.depth_over(items);
        let mut set = Items::new();
        if !items.is_empty() {
            let copies = set.grown();
            self.budget.reserve(copies, items.len())?;
            copies.extend_from_slice(items);
        }
        self.push_new(Node::Set(set), depth)
    }

    /// `getattr` may name a public member of an allowed enumeration, and nothing else: no chain of attributes.
    fn check_getattr(&self, args: &[Id]) -> Result<()> {
        let refuse = || {
            Error::refused("", "getattr of something other than a public member of an allowed enumeration")
        };
        let &[of, name] = args else { return Err(refuse()) };
        match (self.nodes.get(of), self.nodes.get(name)) {
            (&Node::Global(global), &Node::Str { start, len }) => {
                let is_enum = self.globals[global as usize].kind == Kind::Maker;
                let name = &self.pickle[start as usize..start as usize + len as usize];
                let is_plain = name.first().is_some_and(u8::is_ascii_alphabetic)
                    && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                if is_enum && is_plain { Ok(()) } else { Err(refuse()) }
            }
            _ => Err(refuse()),
        }
    }

    fn new_object(&mut self) -> Result<()> {
        let (args, class) = (self.pop()?, self.pop()?);
        let (global, kind) = self.callee(class)?;
        match (kind, self.nodes.tuple(args)) {
            (Kind::Module | Kind::Record, Some([])) => self.object(global, args),
            (Kind::OrderedDict, Some([])) => {
                self.push_new(Node::Dict { ordered: true, items: Items::new() }, 0)
            }
            _ => {
                Err(Error::refused("", format!("{} is not a class to make an object of", self.shown(global))))
            }
        }
    }

    fn object(&mut self, global: u32, args: Id) -> Result<()> {
        let depth = self.depth_over(&[args]);
        self.push_new(Node::Object { global, args, state: Id::NONE }, depth)
    }

    fn build(&mut self) -> Result<()> {
        let new_state = self.pop()?;
        let target = self.top()?;
        let depth = self.depth_over(&[new_state]);
        let is_dict = matches!(self.nodes.get(new_state), Node::Dict { .. });
        match self.nodes.get_mut(target) {
            Node::Object { global, state, .. } => match self.globals[*global as usize].kind {
                Kind::Module | Kind::Record if is_dict && *state == Id::NONE => *state = new_state,
                Kind::Maker if *state == Id::NONE => *state = new_state,
                _ => {
                    let global = *global;
                    return Err(Error::refused(
                        "",
                        format!("state for {} is not a dict, or its second", self.shown(global)),
                    ));
                }
            },
            // State dicts carry their versions as an attribute of the dict, which says nothing on the network.
            Node::Dict { ordered: true, .. } if is_dict => {}
            _ => return Err(Error::refused("", "sets the state of something other than an object")),
        }
        self.deepen(target, depth)
    }
}

/// A little-endian two's complement integer of any length.
fn long(bytes: &[u8]) -> Node {
    if bytes.len() > 8 {
        return Node::BigInt;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(wide))
}
