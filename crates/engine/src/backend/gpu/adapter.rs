//! What graphics processors there are, and which one is meant.

use std::path::Path;

use crate::error::{Error, Result};

/// Invocations that the largest workgroup of any shader has.
pub(super) const MIN_INVOCATIONS: u32 = 256;

/// Bytes of workgroup memory that every device has to have. Some drivers keep a few of 16 KiB for themselves.
pub(super) const MIN_WORKGROUP_BYTES: u32 = 16352;

/// Buffers that a shader is bound to at most.
pub(super) const MIN_BUFFERS: u32 = 3;

/// What sort of processor an adapter is; the sort that is taken first stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AdapterKind {
    /// A graphics processor with memory of its own.
    Discrete,
    /// A graphics processor that shares the memory of the CPU.
    Integrated,
    /// A part of a graphics processor that a virtual machine was given.
    Virtual,
    /// The driver does not tell.
    Other,
    /// A program that runs on the CPU.
    Software,
}

impl AdapterKind {
    /// The kind as one lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        }
    }
}

/// A size in which matrix units multiply: `c[m, n] += a[m, k] * b[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MatrixShape {
    /// Rows of `a` and `c`.
    pub m: u32,
    /// Columns of `b` and `c`.
    pub n: u32,
    /// Columns of `a`, rows of `b`.
    pub k: u32,
    /// Number format of `a` and `b`: `f16`, `f32`, `i32` or `u32`.
    pub inputs: &'static str,
    /// Number format of `c`.
    pub sums: &'static str,
}

/// A graphics processor, or a program that stands in for one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adapter {
    /// Its number, as in `gpu:N`.
    pub index: usize,
    /// What its driver calls it.
    pub name: String,
    /// The interface through which it is reached: `vulkan`, `metal`, `dx12` or `gl`.
    pub backend: String,
    /// Name and version of the driver, as far as known.
    pub driver: String,
    /// What sort of processor it is.
    pub kind: AdapterKind,
    /// Whether it is a program that runs on the CPU.
    pub is_software: bool,
    /// What it lacks, in words; nothing here can be used if this is not empty.
    pub lacks: Vec<String>,
    /// Whether it computes with 16-bit floats.
    pub has_f16: bool,
    /// Whether it tells when a dispatch began and ended, which a profile needs.
    pub has_timestamps: bool,
    /// Whether what was compiled for it can be kept for the next program.
    pub has_pipeline_cache: bool,
    /// Fewest and most invocations of a subgroup; none if shaders can't use subgroups.
    pub subgroup_sizes: Option<[u32; 2]>,
    /// What its matrix units multiply; empty if there are none that shaders can use.
    pub matrix_shapes: Vec<MatrixShape>,
    /// Bytes that one buffer may have in a shader.
    pub max_binding_bytes: u64,
    /// Bytes that one buffer may have.
    pub max_buffer_bytes: u64,
    /// Bytes of memory that the invocations of a workgroup may share.
    pub workgroup_bytes: u32,
    /// Invocations that a workgroup may have.
    pub max_invocations: u32,
    /// Workgroups that a dispatch may have in one direction.
    pub max_workgroups: u32,
}

impl Adapter {
    /// Whether this is what `gpu` without a number means, and `auto`: no program, and lacking nothing.
    #[must_use]
    pub fn is_usable_gpu(&self) -> bool {
        !self.is_software && self.lacks.is_empty()
    }
}

/// All graphics processors, those that can be used first.
///
/// Those that are reached through OpenGL only are there if there are no others.
#[must_use]
pub fn adapters() -> Vec<Adapter> {
    found().into_iter().map(|(adapter, _)| adapter).collect()
}

/// Where Linux has its devices.
const DEVICES: &str = "/dev";

/// The adapter of `all`, as [`adapters`] lists them, that [`Device::Auto`](crate::Device::Auto) tries.
///
/// Errors with `ErrorKind::Device` and the reason if it takes the CPU: none is a graphics processor that lacks nothing,
/// or, on Linux, nothing in `/dev` could be one, which is looked at first.
pub fn automatic(all: &[Adapter]) -> Result<&Adapter> {
    automatic_below(Path::new(DEVICES), all)
}

fn automatic_below<'a>(folder: &Path, all: &'a [Adapter]) -> Result<&'a Adapter> {
    if !may_have_gpu(folder) {
        let message = format!("nothing in {} is a graphics processor", folder.display());
        return Err(Error::device("gpu", message));
    }
    position(all, None).map(|position| &all[position])
}

/// The adapters among which [`automatically`] chooses: none where [`automatic`] would take none anyway. Drivers are not
/// loaded then; those of programs on the CPU are large, and write to the terminal.
pub(crate) fn candidates() -> Vec<Adapter> {
    if may_have_gpu(Path::new(DEVICES)) { adapters() } else { Vec::new() }
}

/// Whether the folder of devices has one by which drivers reach graphics processors. On systems without such a folder
/// that is not known.
fn may_have_gpu(folder: &Path) -> bool {
    /// Of the kernel's own drivers, NVIDIA's, Windows' Linux, and phones and boards.
    const NAMES: [&str; 9] = ["dri", "kfd", "nvidia", "nvhost", "nvmap", "dxg", "kgsl", "mali", "pvr"];
    if !cfg!(target_os = "linux") {
        return true;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return true };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        NAMES.iter().any(|known| name.to_string_lossy().starts_with(known))
    })
}

/// Loads something by `on_gpu` on the adapter of `all` that [`Device::Auto`](crate::Device::Auto) means.
///
/// If there is none, it is loaded by `on_cpu`, and also if `on_gpu` fails, with the reason.
pub(crate) fn automatically<T>(
    all: &[Adapter],
    on_gpu: impl FnOnce(usize) -> Result<T>,
    on_cpu: impl FnOnce(Option<Error>) -> Result<T>,
) -> Result<T> {
    match position(all, None).map(|position| on_gpu(all[position].index)) {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(why)) => on_cpu(Some(why)),
        Err(_) => on_cpu(None),
    }
}

/// The adapter that is meant: the one of this index, or the first that is no program.
pub(super) fn choose(index: Option<usize>) -> Result<(Adapter, wgpu::Adapter)> {
    let (all, mut handles): (Vec<_>, Vec<_>) = found().into_iter().unzip();
    let position = position(&all, index)?;
    Ok((all[position].clone(), handles.swap_remove(position)))
}

/// Where in the list the adapter is that [`choose`] means.
fn position(all: &[Adapter], index: Option<usize>) -> Result<usize> {
    let Some(index) = index else {
        let usable = all.iter().position(Adapter::is_usable_gpu);
        return usable.ok_or_else(|| Error::device("gpu", nothing_real(all)));
    };
    match all.get(index).map(|adapter| (adapter, adapter.lacks.as_slice())) {
        None => {
            let there = match all.len() {
                0 => nothing_real(all),
                1 => "the only one is gpu:0".to_owned(),
                n => format!("there are gpu:0 to gpu:{}", n - 1),
            };
            Err(Error::device("gpu", format!("there is no adapter {index}: {there}")))
        }
        Some((adapter, [lack, ..])) => {
            Err(Error::device("gpu", format!("{} can't be used: {lack}", adapter.name)))
        }
        Some((_, [])) => Ok(index),
    }
}

fn nothing_real(all: &[Adapter]) -> String {
    match all.iter().find(|adapter| adapter.lacks.is_empty()) {
        Some(adapter) => format!(
            "there is only {}, which runs on the CPU; it can be had as gpu:{}",
            adapter.name, adapter.index
        ),
        None if all.is_empty() => "no graphics processor was found, or no driver for it".to_owned(),
        None => "no graphics processor here can be used; `ferroyolo devices` tells why".to_owned(),
    }
}

fn found() -> Vec<(Adapter, wgpu::Adapter)> {
    let list = |backends| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
    };
    // OpenGL only where there is nothing better: it reaches the same devices once more, with less.
    let mut handles = list(wgpu::Backends::PRIMARY);
    if handles.is_empty() {
        handles = list(wgpu::Backends::SECONDARY);
    }
    let mut all: Vec<_> = handles.into_iter().map(|handle| (describe(&handle), handle)).collect();
    // What can be used before what can't, real ones before programs; otherwise as the system lists them.
    all.sort_by_key(|(adapter, _)| (!adapter.lacks.is_empty(), adapter.kind));
    for (index, (adapter, _)) in all.iter_mut().enumerate() {
        adapter.index = index;
    }
    all
}

fn describe(handle: &wgpu::Adapter) -> Adapter {
    let (info, limits, features) = (handle.get_info(), handle.limits(), handle.features());
    let mut lacks = Vec::new();
    if !handle.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS) {
        lacks.push("it has no compute shaders".to_owned());
    }
    let invocations = limits.max_compute_invocations_per_workgroup;
    if invocations < MIN_INVOCATIONS {
        let most = format!("its workgroups have at most {invocations} invocations");
        lacks.push(format!("{most}, {MIN_INVOCATIONS} are needed"));
    }
    let bytes = limits.max_compute_workgroup_storage_size;
    if bytes < MIN_WORKGROUP_BYTES {
        let most = format!("its workgroups have at most {bytes} bytes of memory");
        lacks.push(format!("{most}, {MIN_WORKGROUP_BYTES} are needed"));
    }
    let buffers = limits.max_storage_buffers_per_shader_stage;
    if buffers < MIN_BUFFERS {
        lacks.push(format!("its shaders have at most {buffers} storage buffers, {MIN_BUFFERS} are needed"));
    }
    let has = |feature| features.contains(feature);
    let matrix_shapes = if has(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        handle.cooperative_matrix_properties().iter().map(matrix_shape).collect()
    } else {
        Vec::new()
    };
    let subgroup_sizes =
        has(wgpu::Features::SUBGROUP).then_some([info.subgroup_min_size, info.subgroup_max_size]);
    let driver = [info.driver, info.driver_info].into_iter().filter(|text| !text.is_empty());
    let kind = kind(info.device_type);
    Adapter {
        index: 0,
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        driver: driver.collect::<Vec<_>>().join(" "),
        kind,
        is_software: kind == AdapterKind::Software,
        lacks,
        has_f16: has(wgpu::Features::SHADER_F16),
        has_timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
        has_pipeline_cache: has(wgpu::Features::PIPELINE_CACHE),
        subgroup_sizes,
        matrix_shapes,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroups: limits.max_compute_workgroups_per_dimension,
    }
}

fn kind(device_type: wgpu::DeviceType) -> AdapterKind {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Other => AdapterKind::Other,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
    }
}

fn matrix_shape(found: &wgpu::CooperativeMatrixProperties) -> MatrixShape {
    let name = |scalar| match scalar {
        wgpu::CooperativeScalarType::F32 => "f32",
        wgpu::CooperativeScalarType::F16 => "f16",
        wgpu::CooperativeScalarType::I32 => "i32",
        wgpu::CooperativeScalarType::U32 => "u32",
    };
    let &wgpu::CooperativeMatrixProperties { m_size, n_size, k_size, ab_type, cr_type, .. } = found;
    MatrixShape { m: m_size, n: n_size, k: k_size, inputs: name(ab_type), sums: name(cr_type) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::ErrorKind;

    /// Adapters as a system might have them, in the order of their kinds.
    fn made_up(kinds: &[(AdapterKind, &[&str])]) -> Vec<Adapter> {
        let adapter = |(index, &(kind, lacks)): (usize, &(AdapterKind, &[&str]))| Adapter {
            index,
            name: format!("adapter {index}"),
            backend: "vulkan".into(),
            driver: String::new(),
            kind,
            is_software: kind == AdapterKind::Software,
            lacks: lacks.iter().map(ToString::to_string).collect(),
            has_f16: false,
            has_timestamps: false,
            has_pipeline_cache: false,
            subgroup_sizes: None,
            matrix_shapes: Vec::new(),
            max_binding_bytes: 1 << 27,
            max_buffer_bytes: 1 << 28,
            workgroup_bytes: 16384,
            max_invocations: 256,
            max_workgroups: 65535,
        };
        kinds.iter().enumerate().map(adapter).collect()
    }

    const SOFTWARE: (AdapterKind, &[&str]) = (AdapterKind::Software, &[]);
    const REAL: (AdapterKind, &[&str]) = (AdapterKind::Discrete, &[]);
    const LACKING: (AdapterKind, &[&str]) = (AdapterKind::Discrete, &["it has no compute shaders"]);

    #[test]
    fn the_first_real_adapter_is_meant() {
        let check = |kinds: &[_], expected: std::result::Result<usize, &str>| {
            let got = position(&made_up(kinds), None);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(error), Err(text)) => {
                    assert_eq!(error.kind(), ErrorKind::Device);
                    assert!(error.to_string().contains(text), "{error}");
                }
                (got, expected) => panic!("got {got:?}, expected {expected:?}"),
            }
        };
        check(&[], Err("no graphics processor was found"));
        check(&[SOFTWARE], Err("there is only adapter 0, which runs on the CPU; it can be had as gpu:0"));
        check(&[LACKING], Err("can be used"));
        check(&[SOFTWARE, LACKING], Err("gpu:0"));
        check(&[REAL, REAL], Ok(0));
        check(&[SOFTWARE, REAL, REAL], Ok(1));
        check(&[LACKING, SOFTWARE, REAL], Ok(2));
    }

    #[test]
    fn an_adapter_with_a_number_may_be_a_program() {
        let all = made_up(&[REAL, SOFTWARE, LACKING]);
        assert_eq!(position(&all, Some(1)).expect("a program"), 1);
        let error = position(&all, Some(2)).expect_err("it lacks something");
        assert_eq!(error.to_string(), "gpu: adapter 2 can't be used: it has no compute shaders");
        let error = position(&all, Some(3)).expect_err("it is not there");
        assert_eq!(error.to_string(), "gpu: there is no adapter 3: there are gpu:0 to gpu:2");
        let error = position(&made_up(&[SOFTWARE]), Some(7)).expect_err("it is not there");
        assert_eq!(error.to_string(), "gpu: there is no adapter 7: the only one is gpu:0");
        let error = position(&[], Some(0)).expect_err("there is nothing");
        assert!(error.message().starts_with("there is no adapter 0: no graphics processor"), "{error}");
    }

    #[test]
    fn auto_takes_a_real_adapter_and_otherwise_the_cpu() {
        let check = |kinds: &[_], opens: bool, expected: &str| {
            let on_gpu = |index| match opens {
                true => Ok(format!("gpu:{index}")),
                false => Err(Error::limit("gpu", format!("{index} is out of memory"))),
            };
            let on_cpu = |why: Option<Error>| {
                Ok(why.map_or_else(|| "cpu".to_owned(), |why| format!("cpu, {}", why.message())))
            };
            let got = automatically(&made_up(kinds), on_gpu, on_cpu).expect("the CPU is always there");
            assert_eq!(got, expected);
        };
        check(&[], true, "cpu");
        check(&[SOFTWARE], true, "cpu");
        check(&[LACKING], true, "cpu");
        check(&[LACKING, SOFTWARE], true, "cpu");
        check(&[REAL, REAL], true, "gpu:0");
        check(&[LACKING, SOFTWARE, REAL], true, "gpu:2");
        check(&[REAL, REAL], false, "cpu, 0 is out of memory");
        check(&[SOFTWARE, REAL], false, "cpu, 1 is out of memory");
    }

    /// What fails on the CPU as well is the model's fault, not the device's.
    #[test]
    fn auto_tells_the_error_of_the_cpu_if_both_fail() {
        let error = automatically(
            &made_up(&[REAL]),
            |_| Err::<(), _>(Error::device("gpu", "could not be opened")),
            |_| Err(Error::shape("model.2", "does not fit")),
        );
        assert_eq!(error.expect_err("both failed").to_string(), "model.2: does not fit");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn systems_without_a_device_have_no_gpu() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["null", "video0", "fb0"] {
            fs::write(folder.path().join(name), []).expect("a file");
        }
        let all = made_up(&[LACKING, REAL]);
        let auto = || automatic_below(folder.path(), &all);
        assert!(!may_have_gpu(folder.path()));
        let error = auto().expect_err("there is no device");
        assert!(error.message().ends_with(" is a graphics processor"), "{error}");
        assert!(error.message().contains(&folder.path().display().to_string()), "{error}");
        fs::write(folder.path().join("nvidiactl"), []).expect("a file");
        assert!(may_have_gpu(folder.path()));
        assert_eq!(auto().expect("a real one").index, 1);
        assert!(may_have_gpu(&folder.path().join("absent")));
    }

    #[test]
    fn adapters_here_are_described() {
        for adapter in adapters() {
            assert!(!adapter.name.is_empty() && !adapter.backend.is_empty(), "{adapter:?}");
            if adapter.lacks.is_empty() {
                assert!(adapter.max_invocations >= MIN_INVOCATIONS, "{adapter:?}");
                assert!(adapter.workgroup_bytes >= MIN_WORKGROUP_BYTES, "{adapter:?}");
            }
            assert!(adapter.subgroup_sizes.is_none_or(|[least, most]| 1 <= least && least <= most));
        }
    }
}
