//! Shaders as real WGSL files, and the list of them.
//!
//! One file is one kind of dispatch. Code that several of them need stands in `shared/` and is put before them as it is:
//! there is no template language. What varies is an `override` constant, or one of a few preludes with the same
//! functions: activations and weights are `f32` or `f16` ([`Element`]), and are reached one by one or in fours
//! ([`Lanes`]). Sums are always `f32`. What `f16` can't hold is noted in the last four elements of `arena`.
//! What the invocations of a workgroup have is put together by one of two texts ([`Reduce`]).
//!
//! Bindings of group 0: `jobs`, `arena`, and what a shader takes besides ([`Third`]): `weights`, `picture` or `found`.
//!
//! ```
//! use ferroyolo_shaders::{Element, Lanes};
//!
//! let add = ferroyolo_shaders::find("add").expect("a listed shader");
//! assert!(add.wgsl(Element::F32, Lanes::Four).contains("fn add("));
//! ```

#![forbid(unsafe_code)]

/// One kind of dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// Stem of the file.
    pub name: &'static str,
    /// The file's text, behind what only it and its like need.
    pub source: &'static str,
    /// What it takes besides jobs and arena.
    pub third: Third,
    /// The matrices that it computes with; the device has to have cooperative matrices of this size, and subgroups.
    pub matrix: Option<Matrix>,
    /// How the invocations of a workgroup put together what each of them has, if they do; see [`Shader::reducing`].
    pub reduce: Option<Reduce>,
}

/// How the invocations of a workgroup put together what each of them has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduce {
    /// By workgroup memory alone.
    Barriers,
    /// Within subgroups first, which saves barriers; the device has to have subgroups.
    Subgroups,
}

impl Reduce {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Barriers, Self::Subgroups];

    fn text(self) -> &'static str {
        match self {
            Self::Barriers => include_str!("shared/reduce_barriers.wgsl"),
            Self::Subgroups => include_str!("shared/reduce_subgroups.wgsl"),
        }
    }
}

/// Matrices of elements that the invocations of a subgroup hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// 8 x 8
    Eight,
    /// 16 x 16
    Sixteen,
}

impl Matrix {
    /// Rows and columns.
    #[must_use]
    pub fn side(self) -> usize {
        match self {
            Self::Eight => 8,
            Self::Sixteen => 16,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Eight => include_str!("shared/matrix_8.wgsl"),
            Self::Sixteen => include_str!("shared/matrix_16.wgsl"),
        }
    }
}

/// The third buffer of a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Third {
    /// There is none.
    None,
    /// Trained values, read only.
    Weights,
    /// Pictures of 8-bit samples and how to scale them, read only.
    Picture,
    /// What the host wants to know, and what was found.
    Found,
}

impl Third {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Weights, Self::Picture, Self::Found];

    /// Name of the variable, if there is a buffer.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Weights => Some("weights"),
            Self::Picture => Some("picture"),
            Self::Found => Some("found"),
        }
    }

    /// Whether shaders write it.
    #[must_use]
    pub fn is_written(self) -> bool {
        self == Self::Found
    }

    fn preludes(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Weights => &[include_str!("shared/weights.wgsl"), include_str!("shared/activation.wgsl")],
            Self::Picture => &[include_str!("shared/picture.wgsl")],
            Self::Found => &[include_str!("shared/found.wgsl")],
        }
    }
}

/// The number format of activations and weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit floats; the device has to have the feature `shader-f16`.
    F16,
}

/// How many channels are read and written at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// One: operands may lie anywhere.
    One,
    /// Four: every pixel of every operand begins at a multiple of four elements. If the channels of one are no multiple
    /// of four, the override `RAGGED` has to be 1.
    Four,
}

impl Shader {
    /// The same shader with another way to put together what invocations have, if it does that at all.
    #[must_use]
    pub const fn reducing(self, by: Reduce) -> Self {
        Self { reduce: if self.reduce.is_some() { Some(by) } else { None }, ..self }
    }

    /// The name of the entry point: that of the shader, or `main` if it stands in what reduces.
    #[must_use]
    pub fn entry_point(&self) -> &'static str {
        if self.reduce.is_some() { "main" } else { self.name }
    }

    /// The whole module.
    #[must_use]
    pub fn wgsl(&self, element: Element, lanes: Lanes) -> String {
        let element = match element {
            Element::F32 => include_str!("shared/element_f32.wgsl"),
            Element::F16 => include_str!("shared/element_f16.wgsl"),
        };
        let arena = match lanes {
            Lanes::One => include_str!("shared/arena_x1.wgsl"),
            Lanes::Four => include_str!("shared/arena_x4.wgsl"),
        };
        // These come first: they may enable extensions, which has to stand before everything else.
        let mut parts: Vec<_> =
            self.matrix.iter().map(|_| include_str!("shared/matrix_enable.wgsl")).collect();
        parts.extend([element, arena, include_str!("shared/jobs.wgsl")]);
        parts.extend(self.third.preludes());
        parts.push(self.source);
        // Behind the source, since overrides have to come before whatever is computed of them.
        parts.extend(self.matrix.map(Matrix::text));
        parts.extend(self.reduce.map(Reduce::text));
        parts.join("\n")
    }
}

/// The parts of `shared/` that are named last come before the shader's own text, in this order.
macro_rules! shader {
    ($constant:ident, $name:literal, $third:ident $(, $shared:literal)*) => {
        #[doc = concat!("`", $name, ".wgsl`")]
        pub const $constant: Shader = shader!($name, $third, None $(, $shared)*);
    };
    ($name:literal, $third:ident, $matrix:expr $(, $shared:literal)*) => {
        Shader {
            name: $name,
            source: concat!(
                $(include_str!(concat!("shared/", $shared, ".wgsl")), "\n",)*
                include_str!(concat!($name, ".wgsl"))
            ),
            third: Third::$third,
            matrix: $matrix,
            reduce: None,
        }
    };
}

shader!(ADD, "add", None);
shader!(CONV2D, "conv2d", Weights, "conv_job", "conv_rounds", "tiles");
shader!(CONV2D_DEPTHWISE, "conv2d_depthwise", Weights);
shader!(CONV2D_WIDE, "conv2d_wide", Weights, "conv_job", "conv_rounds", "tiles");
shader!(DETECTIONS, "detections", Found);
shader!(LETTERBOX, "letterbox", Picture);
shader!(MASKS, "masks", Found);
shader!(RESAMPLE, "resample", None);
shader!(TOP_K, "top_k", Found);
shader!(WINDOW_POOL, "window_pool", None);

/// `attention.wgsl`
pub const ATTENTION: Shader = Shader { reduce: Some(Reduce::Barriers), ..shader!("attention", None, None) };
/// `global_avg_pool.wgsl`
pub const GLOBAL_AVG_POOL: Shader =
    Shader { reduce: Some(Reduce::Barriers), ..shader!("global_avg_pool", None, None) };

/// `conv2d_matrix.wgsl` with matrices of 8 x 8.
pub const CONV2D_MATRIX_8: Shader =
    shader!("conv2d_matrix", Weights, Some(Matrix::Eight), "conv_job", "conv_rounds");
/// `conv2d_matrix.wgsl` with matrices of 16 x 16.
pub const CONV2D_MATRIX_16: Shader =
    shader!("conv2d_matrix", Weights, Some(Matrix::Sixteen), "conv_job", "conv_rounds");

/// All shaders, by name.
pub const SHADERS: &[Shader] = &[
    ADD,
    ATTENTION,
    CONV2D,
    CONV2D_DEPTHWISE,
    CONV2D_MATRIX_8,
    CONV2D_MATRIX_16,
    CONV2D_WIDE,
    DETECTIONS,
    GLOBAL_AVG_POOL,
    LETTERBOX,
    MASKS,
    RESAMPLE,
    TOP_K,
    WINDOW_POOL,
];

/// The shader called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Shader> {
    SHADERS.iter().find(|shader| shader.name == name)
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    use naga::{Module, ShaderStage, TypeInner};

    use super::*;

    /// All modules that can be made, with a name for messages.
    fn modules() -> impl Iterator<Item = (String, Shader, Module)> {
        let variants = [Element::F32, Element::F16]
            .into_iter()
            .flat_map(|element| [Lanes::One, Lanes::Four].map(|lanes| (element, lanes)));
        let ways = |shader: &Shader| match shader.reduce {
            Some(_) => Reduce::ALL.map(|by| shader.reducing(by)).to_vec(),
            None => vec![*shader],
        };
        SHADERS.iter().flat_map(ways).flat_map(move |shader| {
            variants.clone().map(move |(element, lanes)| {
                let Shader { name, matrix, reduce, .. } = shader;
                let name = format!("{name} {matrix:?} {reduce:?} {element:?} {lanes:?}");
                let source = shader.wgsl(element, lanes);
                let module = naga::front::wgsl::parse_str(&source)
                    .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
                // Nothing beyond what every WebGPU device can do, but for 16-bit floats, matrices and subgroups.
                let mut capabilities = match element {
                    Element::F32 => Capabilities::empty(),
                    Element::F16 => Capabilities::SHADER_FLOAT16,
                };
                if shader.matrix.is_some() {
                    capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SUBGROUP;
                }
                if shader.reduce == Some(Reduce::Subgroups) {
                    capabilities |= Capabilities::SUBGROUP;
                }
                Validator::new(ValidationFlags::all(), capabilities)
                    .validate(&module)
                    .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
                (name, shader, module)
            })
        })
    }

    #[test]
    fn every_shader_is_valid_and_as_listed() {
        for (name, shader, module) in modules() {
            let [entry] = module.entry_points.as_slice() else {
                panic!("{name}: {} entry points", module.entry_points.len())
            };
            assert_eq!(entry.name, shader.entry_point());
            assert_eq!(entry.stage, ShaderStage::Compute, "{name}");
            // As naga writes HLSL, what subgroups tell is missing in members of a struct.
            assert!(entry.function.arguments.iter().all(|argument| argument.binding.is_some()), "{name}");

            let mut bound: Vec<_> = module
                .global_variables
                .iter()
                .filter_map(|(_, variable)| {
                    let binding = variable.binding.as_ref()?;
                    assert_eq!(binding.group, 0, "{name}");
                    Some((binding.binding, variable.name.clone().unwrap_or_default()))
                })
                .collect();
            bound.sort();
            let listed = ["jobs", "arena"].into_iter().chain(shader.third.name()).map(str::to_owned);
            let listed: Vec<_> = (0..).zip(listed).collect();
            assert_eq!(bound, listed, "{name}");
        }
    }

    #[test]
    fn jobs_are_words_and_begin_with_their_first_workgroup() {
        for (name, _, module) in modules() {
            let (_, job) = module
                .types
                .iter()
                .find(|(_, found)| found.name.as_deref() == Some("Job"))
                .unwrap_or_else(|| panic!("{name}: no struct Job"));
            let TypeInner::Struct { members, span } = &job.inner else { panic!("{name}: Job is no struct") };
            assert_eq!(*span as usize, members.len() * 4, "{name}");
            assert_eq!(members[0].name.as_deref(), Some("first_workgroup"), "{name}");
            for member in members {
                assert_eq!(module.types[member.ty].inner, TypeInner::Scalar(naga::Scalar::U32), "{name}");
            }
        }
    }

    /// What is stored in another way would not be looked at.
    #[test]
    fn shaders_store_by_the_functions_of_the_arena() {
        for shader in SHADERS {
            assert!(!shader.source.contains("arena["), "{} {:?}", shader.name, shader.matrix);
        }
    }

    /// Some drivers skip their bounds checks only for modules that have an override constant.
    #[test]
    fn every_shader_has_an_override() {
        for (name, _, module) in modules() {
            assert!(!module.overrides.is_empty(), "{name}");
        }
    }

    /// naga panics when it is given values for overrides of which one comes behind a size that is computed of others.
    #[test]
    fn overrides_come_before_what_is_computed_of_them() {
        for (name, _, module) in modules() {
            let is_named: Vec<_> = module.overrides.iter().map(|(_, found)| found.name.is_some()).collect();
            assert!(is_named.is_sorted_by(|a, b| a >= b), "{name}: {is_named:?}");
        }
    }

    #[test]
    fn the_list_is_sorted_and_complete() {
        let mut names: Vec<_> = SHADERS.iter().map(|shader| shader.name).collect();
        assert!(names.is_sorted());
        // A file may be listed with several sizes of matrices.
        names.dedup();
        let folder = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the folder of this crate");
        let mut files: Vec<_> = folder
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        files.sort();
        assert_eq!(files, names);
        assert!(find("subtract").is_none());
    }
}
