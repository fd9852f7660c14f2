//! The pickled `torch.nn.Module` tree as plain data: classes, scalar attributes, tensors and children.

use std::collections::HashSet;

use serde_json::{Map, Number, Value};

use super::{Storages, TensorRef};
use crate::credit::{Credit, check_name_len, text_size};
use crate::document::Module;
use crate::error::{Error, Result, printable};
use crate::pickle::Pickle;
use crate::pickle::allow::Kind;
use crate::pickle::value::{Id, Node};

/// Deepest nesting of modules. Real networks stay under twelve.
const MAX_DEPTH: usize = 64;

/// What a module takes in the tree and in the document, beside its own text.
const MODULE_SIZE: usize = size_of::<(String, TreeModule)>() + size_of::<(String, Module)>() + 128;

/// What a map takes as soon as it has one attribute in it: it begins with room for a few.
const FIRST_ATTR_SIZE: usize = 3 * size_of::<(String, Value)>() + 96;

/// What each attribute takes, beside its own text: in maps that are half full, and in the document.
const ATTR_SIZE: usize = size_of::<(String, Value)>() / 3 * 4 + 32;

/// What a number of a sequence takes in the tree and in the document.
const ITEM_SIZE: usize = size_of::<Value>() + 24;

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
    credit: Credit,
}

impl<'a> Modules<'a> {
    pub(crate) fn new(pickle: &'a Pickle, storages: Storages<'a>) -> Self {
        Self::with_credit(pickle, storages, Credit::of(pickle))
    }

    /// The same where something else has been paid for already.
    pub(crate) fn with_credit(pickle: &'a Pickle, storages: Storages<'a>, credit: Credit) -> Self {
        Self { pickle, storages, credit }
    }

    /// What the trees that were read have left.
    pub(crate) fn into_credit(self) -> Credit {
        self.credit
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
        self.credit.pay(MODULE_SIZE + text_size(class), path)?;
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
        self.pay_items(items, path)?;
        let mut seen = HashSet::new();
        for &(key, value) in items {
            let Some(key) = self.name(key, "an attribute", path)? else { continue };
            match key {
                "_parameters" | "_buffers" => {
                    self.read_tensors(value, path, &mut seen, &mut module.tensors)?;
                }
                "_modules" => {}
                _ if key.starts_with('_') || SKIPPED_ATTRS.contains(&key) => {}
                _ => {
                    if let Some(value) = self.attr(value, path, key)? {
                        let first = if module.attrs.is_empty() { FIRST_ATTR_SIZE } else { 0 };
                        self.credit.pay(first + ATTR_SIZE + text_size(key), path)?;
                        module.attrs.insert(key.to_owned(), value);
                    }
                }
            }
        }
        let mut seen = HashSet::new();
        if let Some(children) = pickle.get(state, "_modules") {
            let items = pickle.dict(children).unwrap_or_default();
            self.pay_items(items, path)?;
            for &(name, child) in items {
                let Some(name) = self.name(name, "a module", path)? else { continue };
                let child_path = join(path, name);
                check_name(name, &child_path)?;
                self.credit.pay(text_size(name), path)?;
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
        // Vectors that grew are up to half empty, and there are many of them.
        module.tensors.shrink_to_fit();
        module.children.shrink_to_fit();
        Ok(module)
    }

    fn read_tensors(
        &mut self,
        dict: Id,
        path: &str,
        seen: &mut HashSet<&'a str>,
        out: &mut Vec<(String, TensorRef)>,
    ) -> Result<()> {
        let pickle = self.pickle;
        let items = pickle.dict(dict).unwrap_or_default();
        self.pay_items(items, path)?;
        for &(name, value) in items {
            let Some(name) = self.name(name, "a tensor", path)? else { continue };
            if pickle.is_none(value) {
                continue;
            }
            let place = join(path, name);
            check_name(name, &place)?;
            if !seen.insert(name) {
                return Err(Error::corrupt(place, "tensor is there twice"));
            }
            let tensor = match TensorRef::read(pickle, &self.storages, value) {
                Some(tensor) => tensor.map_err(|error| error.within(&place))?,
                None => {
                    let message = format!("{} stands where a tensor should", pickle.describe(value));
                    return Err(Error::tensor(place, message));
                }
            };
            self.credit.pay(tensor.n_own_bytes() + name.len(), path)?;
            out.push((name.to_owned(), tensor));
        }
        Ok(())
    }

    /// Scalars, and sequences of scalars, as JSON; `None` for everything else.
    fn attr(&mut self, id: Id, path: &str, key: &str) -> Result<Option<Value>> {
        if let Some(items) = self.pickle.sequence(id) {
            self.credit.pay(items.len() * ITEM_SIZE, path)?;
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
                // What is too long to be paid for isn't even looked at.
                self.credit.check(len as usize, path)?;
                let text = self.pickle.str(id).unwrap_or_default();
                self.credit.pay(text_size(text), path)?;
                text.into()
            }
            _ => return Ok(None),
        }))
    }

    /// The text of a key; errors if it is too long to be the name of `what`.
    fn name(&self, id: Id, what: &str, path: &str) -> Result<Option<&'a str>> {
        let Some(n_bytes) = self.pickle.str_len(id) else { return Ok(None) };
        check_name_len(n_bytes, what, path)?;
        Ok(self.pickle.str(id))
    }

    /// Pays for looking at the items of a dict: one module may be named in many places, and its items are looked at
    /// in each.
    fn pay_items(&mut self, items: &[(Id, Id)], path: &str) -> Result<()> {
        self.credit.pay(size_of_val(items), path)
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
