//! Shaders as real WGSL files, and the list of them.
//!
//! One file is one dispatch, named after the op in `crates/engine/src/ops` that it serves. Code that several of them
//! need stands in `shared/` and is put before them as it is: there is no template language, and what varies is an
//! `override` constant.
//!
//! This is the beginning of the GPU backend: no other crate depends on this one yet. The tests hold every file against
//! its entry in [`SHADERS`] and validate it. With the backend come the other ops, `gpu.rs` beside each `cpu.rs`, and a
//! test that compares each op's parameters in Rust with the `Params` of its shader.
//!
//! ```
//! let add = ferroyolo_shaders::find("elementwise_add").expect("a listed shader");
//! assert!(add.wgsl().contains("fn elementwise_add"));
//! ```

#![forbid(unsafe_code)]

/// One dispatch.
#[derive(Clone, Copy, Debug)]
pub struct Shader {
    /// Stem of the file, and name of its entry point.
    pub name: &'static str,
    /// The op that it serves.
    pub op: &'static str,
    /// Text that goes before the source, in this order.
    pub preludes: &'static [&'static str],
    /// The file's text.
    pub source: &'static str,
    /// Invocations of a workgroup in x, y and z.
    pub workgroup_size: [u32; 3],
    /// Resources of group 0; the index is the binding.
    pub bindings: &'static [Binding],
}

/// A resource that a shader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Name of the variable.
    pub name: &'static str,
    /// What is bound.
    pub access: Access,
}

/// How a shader reaches a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is read and written.
    ReadWrite,
}

impl Shader {
    /// The whole module: preludes, then source.
    #[must_use]
    pub fn wgsl(&self) -> String {
        self.preludes.iter().copied().chain([self.source]).collect::<Vec<_>>().join("\n")
    }
}

/// `activate(x)` by the override constant `ACTIVATION`.
pub const ACTIVATION: &str = include_str!("shared/activation.wgsl");

/// All shaders.
pub static SHADERS: &[Shader] = &[Shader {
    name: "elementwise_add",
    op: "add",
    preludes: &[ACTIVATION],
    source: include_str!("elementwise_add.wgsl"),
    workgroup_size: [64, 4, 1],
    bindings: &[
        Binding { name: "params", access: Access::Uniform },
        Binding { name: "a", access: Access::Read },
        Binding { name: "b", access: Access::Read },
        Binding { name: "output", access: Access::ReadWrite },
    ],
}];

/// The shader called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Shader> {
    SHADERS.iter().find(|shader| shader.name == name)
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use naga::{AddressSpace, Module, ShaderStage, StorageAccess};

    use super::*;

    /// The parsed and validated module of a shader. Panics with naga's own report.
    fn parse(shader: &Shader) -> Module {
        let source = shader.wgsl();
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{}: {}", shader.name, error.emit_to_string(&source)));
        // Nothing beyond what every WebGPU device can do.
        Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}: {}", shader.name, error.emit_to_string(&source)));
        module
    }

    fn access(space: AddressSpace) -> Access {
        match space {
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access == StorageAccess::LOAD => Access::Read,
            AddressSpace::Storage { access } if access == StorageAccess::LOAD | StorageAccess::STORE => {
                Access::ReadWrite
            }
            other => panic!("no binding lies in {other:?}"),
        }
    }

    #[test]
    fn every_shader_is_valid_and_as_listed() {
        for shader in SHADERS {
            let module = parse(shader);
            let [entry] = module.entry_points.as_slice() else {
                panic!("{}: {} entry points", shader.name, module.entry_points.len())
            };
            assert_eq!(entry.name, shader.name);
            assert_eq!(entry.stage, ShaderStage::Compute, "{}", shader.name);
            assert_eq!(entry.workgroup_size, shader.workgroup_size, "{}", shader.name);

            let mut bound: Vec<_> = module
                .global_variables
                .iter()
                .filter_map(|(_, variable)| {
                    let binding = variable.binding.as_ref()?;
                    assert_eq!(binding.group, 0, "{}: {:?}", shader.name, variable.name);
                    Some((binding.binding, variable.name.clone().unwrap_or_default(), access(variable.space)))
                })
                .collect();
            bound.sort_by_key(|(index, ..)| *index);
            let listed: Vec<_> =
                (0..).zip(shader.bindings).map(|(index, b)| (index, b.name.to_owned(), b.access)).collect();
            assert_eq!(bound, listed, "{}", shader.name);
        }
    }

    #[test]
    fn workgroups_fit_every_device() {
        for shader in SHADERS {
            // The default limit of WebGPU.
            assert!(shader.workgroup_size.iter().product::<u32>() <= 256, "{}", shader.name);
        }
    }

    /// Some drivers skip their bounds checks only for modules that have an override constant.
    #[test]
    fn every_shader_has_an_override() {
        for shader in SHADERS {
            assert!(!parse(shader).overrides.is_empty(), "{}", shader.name);
        }
    }

    #[test]
    fn names_are_unique() {
        for shader in SHADERS {
            assert!(std::ptr::eq(find(shader.name).expect("a listed shader"), shader), "{}", shader.name);
        }
        assert!(find("elementwise_multiply").is_none());
    }
}
