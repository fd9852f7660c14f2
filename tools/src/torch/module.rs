//! The pickled `torch.nn.Module` tree as plain data: classes, scalar attributes, tensors and children.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

use super::{Storages, TensorRef};
use crate::error::{Error, Result, printable};
use crate::pickle::Pickle;
use crate::pickle::allow::Kind;
use crate::pickle::value::{Id, Node};

/// Deepest nesting of modules. Real networks stay under twelve.
const MAX_DEPTH: usize = 64;

/// What an attribute takes in its map, beside its own text.
const ATTR_SIZE: usize = 96;

/// What a tensor's name, shape and strides take.
const TENSOR_SIZE: usize = 96;

/// Memory for the tree that any file may use, however small it is.
const CREDIT_FLOOR: usize = 1 << 16;

/// Attributes that say nothing on what a module computes: places in the sequence, caches and modes of the trainer.
const SKIPPED_ATTRS: &[&str] =
    &["training", "i", "f", "type", "np", "anchors", "strides", "shape", "inplace", "pt_path", "save"];

/// One module of the tree.
#[derive(Debug)]
pub(crate) struct TreeModule {
    /// Published name, without its package.
    pub(crate) class: String,
    pub(crate) attrs: Map<String, Value>,
    /// Parameters and buffers, under their own names.
    pub(crate) tensors: Vec<(String, TensorRef)>,
    pub(crate) children: Vec<(String, TreeModule)>,
    /// What BUILD would have set: a dict with all of the above.
    pub(crate) state: Id,
}

impl TreeModule {
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(of, _)| of == name).map(|(_, child)| child)
    }

    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorRef> {
        self.tensors.iter().find(|(of, _)| of == name).map(|(_, tensor)| tensor)
    }
}

/// Reads module trees out of a pickle.
pub(crate) struct Modules<'a> {
    pickle: &'a Pickle,
    storages: Storages<'a>,
    /// Bytes that the tree may still take. A pickle can name one module in many places, so a small file could hold a
    /// huge tree.
    credit: usize,
}

impl<'a> Modules<'a> {
    pub(crate) fn new(pickle: &'a Pickle, storages: Storages<'a>) -> Self {
        Self { pickle, storages, credit: CREDIT_FLOOR.max(storages.bytes.len() / 4 * 3) }
    }

    /// Class and state of the module at `id`; `None` if it is not a module.
    pub(crate) fn class_and_state(pickle: &Pickle, id: Id) -> Option<(&str, Id)> {
        match *pickle.node(id) {
            Node::Object { global, state, .. } if pickle.kind(global) == Kind::Module => {
                Some((published_class(pickle.global(global).1), state))
            }
            _ => None,
        }
    }

    /// Reads the module at `id` with all that is below it; `path` is its name in messages.
    pub(crate) fn read(&mut self, id: Id, path: &str) -> Result<TreeModule> {
        self.read_at(id, path, 0)
    }

    fn read_at(&mut self, id: Id, path: &str, depth: usize) -> Result<TreeModule> {
        let pickle = self.pickle;
        let Some((class, state)) = Modules::class_and_state(pickle, id) else {
            return Err(Error::unsupported(
                path,
                format!("{} stands where a module should", pickle.describe(id)),
            ));
        };
        if depth > MAX_DEPTH {
            return Err(Error::limit(path, format!("modules nest deeper than {MAX_DEPTH}")));
        }
        self.pay(size_of::<(String, TreeModule)>() + class.len(), path)?;
        let Some(items) = pickle.dict(state) else {
            return Err(Error::corrupt(path, format!("module {class} has no state")));
        };
        let mut module = TreeModule {
            class: class.to_owned(),
            attrs: Map::new(),
            tensors: Vec::new(),
            children: Vec::new(),
            state,
        };
        for &(key, value) in items {
            let Some(key) = pickle.str(key) else { continue };
            match key {
                "_parameters" | "_buffers" => self.read_tensors(value, path, &mut module.tensors)?,
                "_modules" => {}
                _ if key.starts_with('_') || SKIPPED_ATTRS.contains(&key) => {}
                _ => {
                    if let Some(value) = self.attr(value, path, key)? {
                        self.pay(ATTR_SIZE + key.len(), path)?;
                        module.attrs.insert(key.to_owned(), value);
                    }
                }
            }
        }
        let mut seen = HashSet::new();
        if let Some(children) = pickle.get(state, "_modules") {
            for &(name, child) in pickle.dict(children).unwrap_or_default() {
                let Some(name) = pickle.str(name) else { continue };
                let child_path = join(path, name);
                check_name(name, &child_path)?;
                if !seen.insert(name) {
                    return Err(Error::corrupt(child_path, "module is there twice"));
                }
                if pickle.is_none(child) {
                    continue;
                }
                let child = self.read_at(child, &child_path, depth + 1)?;
                module.children.push((name.to_owned(), child));
            }
        }
        Ok(module)
    }

    fn read_tensors(&mut self, dict: Id, path: &str, out: &mut Vec<(String, TensorRef)>) -> Result<()> {
        let pickle = self.pickle;
        for &(name, value) in pickle.dict(dict).unwrap_or_default() {
            let Some(name) = pickle.str(name) else { continue };
            if pickle.is_none(value) {
                continue;
            }
            let place = join(path, name);
            check_name(name, &place)?;
            self.pay(size_of::<(String, TensorRef)>() + TENSOR_SIZE, path)?;
            if out.iter().any(|(other, _)| other == name) {
                return Err(Error::corrupt(place, "tensor is there twice"));
            }
            let tensor = match TensorRef::read(pickle, &self.storages, value) {
                Some(tensor) => tensor.map_err(|error| error.within(&place))?,
                None => {
                    let message = format!("{} stands where a tensor should", pickle.describe(value));
                    return Err(Error::tensor(place, message));
                }
            };
            out.push((name.to_owned(), tensor));
        }
        Ok(())
    }

    /// Scalars, and sequences of scalars, as JSON; `None` for everything else.
    fn attr(&mut self, id: Id, path: &str, key: &str) -> Result<Option<Value>> {
        if let Some(items) = self.pickle.sequence(id) {
            self.pay(items.len() * size_of::<Value>(), path)?;
            let items: Result<Option<Vec<_>>> =
                items.iter().map(|&item| self.scalar(item, path, key)).collect();
            return Ok(items?.map(Value::Array));
        }
        self.scalar(id, path, key)
    }

    fn scalar(&mut self, id: Id, path: &str, key: &str) -> Result<Option<Value>> {
        Ok(Some(match *self.pickle.node(id) {
            Node::None => Value::Null,
            Node::Bool(value) => value.into(),
            Node::Int(value) => value.into(),
            Node::Float(value) => match Number::from_f64(value) {
                Some(number) => number.into(),
                None => return Err(Error::corrupt(join(path, key), format!("attribute is {value}"))),
            },
            Node::BigInt => {
                return Err(Error::corrupt(join(path, key), "attribute is an integer of over 64 bits"));
            }
            Node::Str { len, .. } => {
                self.pay(len as usize, path)?;
                self.pickle.str(id).unwrap_or_default().into()
            }
            _ => return Ok(None),
        }))
    }

    fn pay(&mut self, n: usize, path: &str) -> Result<()> {
        match self.credit.checked_sub(n) {
            Some(left) => self.credit = left,
            None => {
                return Err(Error::limit(
                    path,
                    "the module tree is larger than the file that it is read from",
                ));
            }
        }
        Ok(())
    }
}

/// The name that a class has today.
fn published_class(name: &str) -> &str {
    match name {
        "Silence" => "Identity",
        "NonDynamicallyQuantizableLinear" => "Linear",
        "YOLOv10DetectionModel" => "DetectionModel",
        _ => name,
    }
}

/// Names are joined by dots to tensor names, so a name with a dot in it could stand for another.
fn check_name(name: &str, path: &str) -> Result<()> {
    if name.is_empty() || name.contains('.') {
        return Err(Error::corrupt(path, "name of a module or tensor is empty or has a dot in it"));
    }
    Ok(())
}

fn join(path: &str, name: &str) -> String {
    let name = printable(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}
