//! A module of the tree together with its path, as the builders see it.

use std::borrow::Cow;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::graph::ValueId;
use crate::weights::{Layer, Module};

/// One module and the path of its tensors.
pub(crate) struct ModuleNode<'a> {
    path: Cow<'a, str>,
    module: &'a Module,
}

impl<'a> ModuleNode<'a> {
    /// The module of a layer.
    pub(crate) fn root(layer: &'a Layer) -> Self {
        Self { path: Cow::Borrowed(&layer.path), module: &layer.module }
    }

    /// The published class name.
    pub(crate) fn class(&self) -> &'a str {
        &self.module.class
    }

    /// Prefix of the tensor names.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The child called `name`; an error if there is none.
    pub(crate) fn child(&self, name: &str) -> Result<ModuleNode<'a>> {
        self.find(name).ok_or_else(|| {
            Error::format(
                self.path(),
                format!("a module of class {:?} without the child {name:?}", self.class()),
            )
        })
    }

    /// The child called `name`, if there is one.
    pub(crate) fn find(&self, name: &str) -> Option<ModuleNode<'a>> {
        let (name, module) = self.module.children.iter().find(|(child, _)| child == name)?;
        Some(self.join(name, module))
    }

    /// All children in order.
    pub(crate) fn children(&self) -> impl Iterator<Item = ModuleNode<'a>> {
        self.module.children.iter().map(|(name, module)| self.join(name, module))
    }

    fn join(&self, name: &str, module: &'a Module) -> ModuleNode<'a> {
        ModuleNode { path: Cow::Owned(format!("{}.{name}", self.path)), module }
    }

    /// The only input; an error unless there is exactly one.
    pub(crate) fn single(&self, inputs: &[ValueId]) -> Result<ValueId> {
        match inputs {
            &[input] => Ok(input),
            _ => Err(Error::shape(
                self.path(),
                format!("a module of class {:?} takes one input, got {}", self.class(), inputs.len()),
            )),
        }
    }

    /// The attribute `name`, if the module has it.
    pub(crate) fn attr(&self, name: &str) -> Option<&'a Value> {
        self.module.attrs.get(name).filter(|value| !value.is_null())
    }

    /// Whether the module has the attribute `name` and it says that there is nothing.
    pub(crate) fn is_none(&self, name: &str) -> bool {
        self.module.attrs.get(name).is_some_and(Value::is_null)
    }

    fn expect<T>(&self, name: &str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let value = self.attr(name).ok_or_else(|| {
            Error::format(
                self.path(),
                format!("a module of class {:?} without the attribute {name:?}", self.class()),
            )
        })?;
        read(value).ok_or_else(|| {
            Error::format(self.path(), format!("attribute {name:?}: got {value}, expected {what}"))
        })
    }

    /// A count or size, which may be written as a whole float.
    pub(crate) fn usize(&self, name: &str) -> Result<usize> {
        self.expect(name, "a count", as_usize)
    }

    /// A count for each direction, written as one number or as two.
    pub(crate) fn pair(&self, name: &str) -> Result<[usize; 2]> {
        self.expect(name, "one count or two", |value| match value.as_array() {
            Some(values) => match values.as_slice() {
                [h, w] => Some([as_usize(h)?, as_usize(w)?]),
                _ => None,
            },
            None => as_usize(value).map(|both| [both, both]),
        })
    }

    /// One count that holds for both directions.
    pub(crate) fn square(&self, name: &str) -> Result<usize> {
        let [h, w] = self.pair(name)?;
        if h == w {
            return Ok(h);
        }
        Err(Error::unsupported(self.path(), format!("attribute {name:?} differs by direction: [{h}, {w}]")))
    }

    /// A list of counts.
    pub(crate) fn usizes(&self, name: &str) -> Result<Vec<usize>> {
        self.expect(name, "a list of counts", |value| value.as_array()?.iter().map(as_usize).collect())
    }

    /// A number.
    pub(crate) fn float(&self, name: &str) -> Result<f64> {
        self.expect(name, "a finite number", |value| value.as_f64().filter(|value| value.is_finite()))
    }

    /// A truth value.
    pub(crate) fn flag(&self, name: &str) -> Result<bool> {
        self.expect(name, "true or false", Value::as_bool)
    }

    /// A truth value, or `default` where the module was trained before the attribute existed.
    pub(crate) fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        if self.attr(name).is_some() { self.flag(name) } else { Ok(default) }
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<&'a str> {
        let value = self.attr(name).and_then(Value::as_str);
        value.ok_or_else(|| Error::format(self.path(), format!("attribute {name:?}: expected a text")))
    }
}

/// A whole number that fits a size; sizes beyond 2^24 are nonsense in any network.
fn as_usize(value: &Value) -> Option<usize> {
    let number = value.as_f64()?;
    let is_count = number.fract() == 0.0 && (0.0..=16_777_216.0).contains(&number);
    is_count.then_some(number as usize)
}
