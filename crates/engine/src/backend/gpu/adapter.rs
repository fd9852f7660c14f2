//! What graphics processors there are, and which one is meant.

use crate::error::{Error, Result};

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
    /// Whether it is a program that runs on the CPU.
    pub is_software: bool,
    /// What it lacks, in words; nothing here can be used if this is not empty.
    pub lacks: Vec<String>,
    /// Whether it computes with 16-bit floats.
    pub has_f16: bool,
    /// Bytes that one buffer may have in a shader.
    pub max_binding_bytes: u64,
}

/// All graphics processors, those that can be used first.
///
/// Those that are reached through OpenGL only are there if there are no others.
#[must_use]
pub fn adapters() -> Vec<Adapter> {
    found().into_iter().map(|(adapter, _)| adapter).collect()
}

/// The adapter that is meant: the one of this index, or the first that is no program.
pub(super) fn choose(index: Option<usize>) -> Result<(Adapter, wgpu::Adapter)> {
    let mut all = found();
    let position = match index {
        Some(index) if index < all.len() => index,
        Some(index) => {
            let message = format!("there is no adapter {index}, there are {}", all.len());
            return Err(Error::device("gpu", message));
        }
        None => match all.iter().position(|(adapter, _)| !adapter.is_software && adapter.lacks.is_empty()) {
            Some(position) => position,
            None => return Err(Error::device("gpu", nothing_real(&all))),
        },
    };
    let (adapter, handle) = all.swap_remove(position);
    if let [lack, ..] = adapter.lacks.as_slice() {
        return Err(Error::device("gpu", format!("{} can't be used: {lack}", adapter.name)));
    }
    Ok((adapter, handle))
}

fn nothing_real(all: &[(Adapter, wgpu::Adapter)]) -> String {
    match all.iter().find(|(adapter, _)| adapter.lacks.is_empty()) {
        Some((adapter, _)) => format!(
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
    // Real ones first, and what can be used before what can't; otherwise as the system lists them.
    all.sort_by_key(|(adapter, _)| (!adapter.lacks.is_empty(), adapter.is_software));
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
    let wanted = wgpu::Limits::downlevel_defaults();
    if limits.max_compute_invocations_per_workgroup < wanted.max_compute_invocations_per_workgroup {
        lacks.push(format!(
            "its workgroups have at most {} invocations, 256 are needed",
            limits.max_compute_invocations_per_workgroup
        ));
    }
    if limits.max_storage_buffers_per_shader_stage < 3 {
        lacks.push(format!(
            "shaders have at most {} storage buffers, 3 are needed",
            limits.max_storage_buffers_per_shader_stage
        ));
    }
    let driver = [info.driver, info.driver_info].into_iter().filter(|text| !text.is_empty());
    Adapter {
        index: 0,
        name: info.name,
        backend: info.backend.to_str().to_owned(),
        driver: driver.collect::<Vec<_>>().join(" "),
        is_software: info.device_type == wgpu::DeviceType::Cpu,
        lacks,
        has_f16: features.contains(wgpu::Features::SHADER_F16),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
    }
}
