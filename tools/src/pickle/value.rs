//! Pickled values as inert data: an arena of small nodes that refer to each other by number.
//!
//! Nothing in it has behaviour and nothing is dropped recursively, so a value may share parts, contain itself or nest
//! as it likes without harm.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::allow::Kind;
use super::machine;
use crate::error::{Error, Result};

/// A value's number in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(pub(crate) u32);

impl Id {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const FALSE: Self = Self(1);
    pub(crate) const TRUE: Self = Self(2);
    pub(crate) const EMPTY_TUPLE: Self = Self(3);
}

/// One value.
#[derive(Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits.
    BigInt,
    Float(f64),
    /// UTF-8 at this place of the pickle.
    Str {
        start: u32,
        len: u32,
    },
    /// A run of the arena's pool: tuples never change, so they need no memory of their own.
    Tuple {
        start: u32,
        len: u32,
    },
    List(Items<Id>),
    Dict {
        ordered: bool,
        items: Items<(Id, Id)>,
    },
    Set(Items<Id>),
    /// The name of something importable.
    Global(u32),
    /// What PyTorch calls a persistent id: a tuple that names a storage.
    Storage(Id),
    /// What a call of a global with `args` would have given, with the state that BUILD would have set.
    Object {
        global: u32,
        args: Id,
        state: Id,
    },
}

/// The items of a container that can grow. Most of them stay empty, and then they take one word.
#[derive(Debug)]
pub(crate) struct Items<T>(Option<Box<Grown<T>>>);

#[derive(Debug)]
struct Grown<T>(Vec<T>);

impl<T> Items<T> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |grown| &grown.0)
    }

    /// The items as a vector that can grow; made where there is none yet.
    pub(crate) fn grown(&mut self) -> &mut Vec<T> {
        &mut self.0.get_or_insert_with(|| Box::new(Grown(Vec::new()))).0
    }
}

/// A global that the pickle names, all of them allowed.
#[derive(Debug)]
pub(crate) struct GlobalRef {
    pub(crate) module: Range<usize>,
    pub(crate) name: Range<usize>,
    pub(crate) kind: Kind,
}

/// A pickle that has been read to its end, as inert data.
pub struct Pickle {
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Where the pickle lies in `bytes`; the ranges of strings and globals count from its start.
    pub(crate) range: Range<usize>,
    pub(crate) nodes: Arena,
    pub(crate) globals: Vec<GlobalRef>,
    pub(crate) root: Id,
    /// Memory that the values take, at most.
    pub(crate) n_bytes: usize,
}

impl fmt::Debug for Pickle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pickle({} values, {} globals)", self.nodes.len(), self.globals.len())
    }
}

impl Pickle {
    /// Reads the pickle at `range` of `bytes`.
    ///
    /// Nothing is imported or called. Errors name the opcode and its byte offset in the pickle: `ErrorKind::Refused`
    /// for globals and opcodes outside the allow-lists, `ErrorKind::Limit` where the values would take more memory
    /// than the whole file, `ErrorKind::Corrupt` for the rest.
    pub fn parse(bytes: Arc<Vec<u8>>, range: Range<usize>) -> Result<Self> {
        machine::run(bytes, range)
    }

    /// The number of values, shared ones counted once.
    pub fn n_values(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id)
    }

    /// The text at `range`, which was checked to be UTF-8 when it was read.
    pub(crate) fn text(&self, range: Range<usize>) -> &str {
        let pickle = &self.bytes[self.range.clone()];
        pickle.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    pub(crate) fn str(&self, id: Id) -> Option<&str> {
        match *self.node(id) {
            Node::Str { start, len } => Some(self.text(start as usize..start as usize + len as usize)),
            _ => None,
        }
    }

    /// Bytes of the text, without looking at it.
    pub(crate) fn str_len(&self, id: Id) -> Option<usize> {
        match *self.node(id) {
            Node::Str { len, .. } => Some(len as usize),
            _ => None,
        }
    }

    /// Integers, and Python's bools, which are integers there.
    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match *self.node(id) {
            Node::Int(value) => Some(value),
            Node::Bool(value) => Some(value.into()),
            _ => None,
        }
    }

    pub(crate) fn is_none(&self, id: Id) -> bool {
        matches!(self.node(id), Node::None)
    }

    /// The items of a tuple, a list, or a `torch.Size`.
    pub(crate) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) => Some(items.as_slice()),
            &Node::Object { global, args, .. } if self.kind(global) == Kind::Size => {
                match self.nodes.tuple(args)? {
                    &[inner] => match self.node(inner) {
                        Node::List(items) => Some(items.as_slice()),
                        _ => self.nodes.tuple(inner),
                    },
                    _ => None,
                }
            }
            _ => self.nodes.tuple(id),
        }
    }

    pub(crate) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict { items, .. } => Some(items.as_slice()),
            _ => None,
        }
    }

    /// The value under `key` of a dict; as in Python, the last one if it is there more than once.
    pub(crate) fn get(&self, dict: Id, key: &str) -> Option<Id> {
        let items = self.dict(dict)?;
        // Only text of the right length is looked at: a long one may stand there many times.
        let is_key = |id| self.str_len(id) == Some(key.len()) && self.str(id) == Some(key);
        items.iter().rev().find(|&&(k, _)| is_key(k)).map(|&(_, value)| value)
    }

    pub(crate) fn kind(&self, global: u32) -> Kind {
        self.globals[global as usize].kind
    }

    /// Module and name of a global.
    pub(crate) fn global(&self, global: u32) -> (&str, &str) {
        let global = &self.globals[global as usize];
        (self.text(global.module.clone()), self.text(global.name.clone()))
    }

    /// What kind of value this is, for messages.
    pub(crate) fn describe(&self, id: Id) -> String {
        match self.node(id) {
            Node::None => "None".into(),
            Node::Bool(_) => "a bool".into(),
            Node::Int(_) | Node::BigInt => "an integer".into(),
            Node::Float(_) => "a float".into(),
            Node::Str { .. } => "a string".into(),
            Node::Tuple { .. } => "a tuple".into(),
            Node::List(_) => "a list".into(),
            Node::Dict { .. } => "a dict".into(),
            Node::Set(_) => "a set".into(),
            Node::Global(global) => {
                let (module, name) = self.global(*global);
                format!("the global {module}.{name}")
            }
            Node::Storage(_) => "a storage".into(),
            Node::Object { global, .. } => {
                let (module, name) = self.global(*global);
                format!("an object of {module}.{name}")
            }
        }
    }
}

const CHUNK: usize = 1 << 10;

/// Nodes in chunks, so that growing never moves or doubles them.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Vec<Node>>,
    len: usize,
    /// Items of all tuples.
    pool: Vec<Id>,
}

impl Arena {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, node: Node) -> Result<Id> {
        let id =
            u32::try_from(self.len).map_err(|_| Error::limit("", "pickle builds more than 2^32 values"))?;
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(node);
        }
        self.len += 1;
        Ok(Id(id))
    }

    /// A tuple of the `n` values that are pushed to [`Self::pool`] next.
    pub(crate) fn next_tuple(&self, n: usize) -> Result<Node> {
        match (u32::try_from(self.pool.len()), u32::try_from(n)) {
            (Ok(start), Ok(len)) => Ok(Node::Tuple { start, len }),
            _ => Err(Error::limit("", "pickle builds too many tuples")),
        }
    }

    /// Items of all tuples, one after the other.
    pub(crate) fn pool(&mut self) -> &mut Vec<Id> {
        &mut self.pool
    }

    /// The items, if it is a tuple.
    pub(crate) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match *self.get(id) {
            Node::Tuple { start, len } => Some(&self.pool[start as usize..start as usize + len as usize]),
            _ => None,
        }
    }

    pub(crate) fn get(&self, id: Id) -> &Node {
        &self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.chunks[id.0 as usize / CHUNK][id.0 as usize % CHUNK]
    }
}
