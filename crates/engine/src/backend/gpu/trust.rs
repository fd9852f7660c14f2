//! What of wgpu can be had only by `unsafe`: the one place for it outside of the kernels.

#![expect(unsafe_code, reason = "wgpu asks for it where it does not vouch for its own safety")]

use ferroyolo_shaders::{Element, Lanes, Shader};

use super::pipelines::Proven;
use super::variant::PRODUCT_SHADERS;

/// Leave to ask a device for what wgpu is not done with; of that, only cooperative matrices are asked for.
pub(super) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: this is an acknowledgement that such features may have bugs, not a promise about values. What they compute
    // is held against an answer that is known (`known_answer`) before they are used, by this process or by an earlier one
    // with the same driver and the same shaders (`verdict`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// A shader for a device. Those that compute products go without the checks that wgpu adds to shaders that it does not
/// know, of indices, divisors and the ends of loops: these would stand in their innermost loops, and keep drivers from
/// unrolling them.
pub(super) fn module(
    device: &wgpu::Device,
    shader: &Shader,
    element: Element,
    lanes: Lanes,
) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(shader.name),
        source: wgpu::ShaderSource::Wgsl(shader.wgsl(element, lanes).into()),
    };
    if !PRODUCT_SHADERS.contains(shader) {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: no value from a buffer but the words of jobs gets into an index, a divisor or the bounds of a loop there.
    // Jobs of such a shader come into a dispatch by `program` only, which refuses them unless all that their words lead
    // to lies within the arena that is bound and no divisor is zero (`Product::arena_end`, from `ConvJob`; a job that
    // does not tell it is refused, too). What of the weights they read is bound with them (`Job::weights`), and what is
    // too large is noted in the last vector that is bound. Workgroup memory is indexed by numbers of invocations and by
    // override constants, which come from the ways in `variant` and `matrix` alone, and is as large as these say; the
    // number of a subgroup and how many there are, which a driver tells, are first limited by such constants. Loops run
    // up to such a constant or a number of the job, in steps above zero.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// A cache of pipelines with what an earlier one of this adapter held; empty if the driver does not want that.
pub(super) fn pipeline_cache(device: &wgpu::Device, earlier: Option<&Proven>) -> wgpu::PipelineCache {
    let data = earlier.map(Proven::bytes);
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("ferroyolo"), data, fallback: true };
    // SAFETY: the data has to come from `PipelineCache::get_data`. A `Proven` is made only of a file that `pipelines` has
    // written with exactly that in it, for an adapter and driver of the same names, as its SHA-256 tells. It tells damage;
    // whoever else may write to the folder could make a file that passes, and is trusted.
    unsafe { device.create_pipeline_cache(&descriptor) }
}
