//! What of wgpu can be had only by `unsafe`: the one place for it outside of the kernels.

#![expect(unsafe_code, reason = "wgpu asks for it where it does not vouch for its own safety")]

use super::pipelines::Proven;

/// Leave to ask a device for what wgpu is not done with; of that, only cooperative matrices are asked for.
pub(super) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: this is an acknowledgement that such features may have bugs, not a promise about values. What they compute
    // is held against an answer that is known (`known_answer`) before they are used, by this process or by an earlier one
    // with the same driver and the same shaders (`verdict`).
    unsafe { wgpu::ExperimentalFeatures::enabled() }
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
