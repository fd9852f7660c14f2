//! Reads pickles as inert data.
//!
//! A pickle is a program that builds objects. Here it builds a tree of plain values: what Python would import becomes
//! the name of a global, what Python would call becomes a record of the call. Globals have to stand on an exact
//! allow-list, and only the opcodes that PyTorch writes are understood. [`scan()`] lists what any pickle, hostile ones
//! included, would import and call.

pub(crate) mod allow;
mod machine;
pub(crate) mod opcode;
pub(crate) mod scan;
#[cfg(test)]
mod tests;
pub(crate) mod value;

pub use scan::{GlobalUse, Scan, scan};
pub use value::Pickle;
