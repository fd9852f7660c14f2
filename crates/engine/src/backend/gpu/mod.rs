//! Graphics processors, by way of wgpu.
//!
//! - [`adapters`] says what there is, [`Gpu`] is an open device with its compiled pipelines;
//! - an op becomes one or several [`Job`]s (`ops/<op>/gpu.rs`);
//! - convolutions leave open how they are cut into workgroups: a dispatch chooses one [`variant`] for all its jobs,
//!   by measurements of a [`Tuner`] or by what is likely;
//! - a [`Program`] is a plan as dispatches: jobs of one round and one kind go together;
//! - a [`Frame`] is a session's part: buffers and bind groups, made once, and the way there and back. A session that has
//!   several pictures on the way has as many frames.
//!
//! All activations lie in one buffer, as on the CPU, without a halo. It is bound for reading and writing at once, so that
//! an op may read some channels of a buffer and write others.

mod adapter;
mod device;
#[cfg(test)]
mod failures;
mod frame;
mod job;
mod kept;
mod known_answer;
mod matrix;
mod overflow;
mod picture;
mod pipelines;
mod profile;
mod program;
mod reduce;
mod stopwatch;
#[cfg(test)]
mod tests;
mod trust;
mod tune;
mod variant;
mod verdict;

pub use adapter::{Adapter, AdapterKind, MatrixShape, adapters, automatic};
pub(crate) use adapter::{automatically, candidates};
pub(crate) use device::{Gpu, Opening};
pub use frame::Traffic;
pub(crate) use frame::{Errand, Frame, Input, Wanted};
pub(crate) use job::{GpuWeights, Job, Packer, THREADS, elementwise, job_struct, lanes_for, pixels, word};
pub(crate) use overflow::{first_overflow, images_beyond, overflow};
pub(crate) use picture::{Picture, fit as pictures_fit};
pub(crate) use profile::times;
pub(crate) use program::{Finder, FoundLayout, GpuTarget, Program, elements};
#[cfg(test)]
pub(crate) use program::{Stages, Upload};
pub(crate) use tune::Tuner;
pub(crate) use variant::{Choose, Guess, Product};
#[cfg(test)]
pub(crate) use variant::{Nth, Variant, variants};

/// The smallest limits of a device that is used at all.
#[cfg(test)]
pub(crate) fn smallest_limits() -> wgpu::Limits {
    wgpu::Limits {
        max_compute_invocations_per_workgroup: adapter::MIN_INVOCATIONS,
        max_compute_workgroup_storage_size: adapter::MIN_WORKGROUP_BYTES,
        max_storage_buffers_per_shader_stage: adapter::MIN_BUFFERS,
        ..wgpu::Limits::downlevel_defaults()
    }
}

/// As [`for_tests`], with the smallest limits.
#[cfg(test)]
pub(crate) fn for_tests_in_rows(element: ferroyolo_shaders::Element) -> Option<Gpu> {
    let index = for_tests(element)?.adapter().index;
    // Rows are short, so that dispatches have several of them.
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 64, ..smallest_limits() };
    Some(Gpu::open_within(Some(index), element, Some(limits)).expect("a device with the smallest limits"))
}

/// A device for tests, on the first usable adapter with these numbers. None if there is none, which is told; in CI that
/// is a failure.
#[cfg(test)]
pub(crate) fn for_tests(element: ferroyolo_shaders::Element) -> Option<Gpu> {
    let needs_f16 = element == ferroyolo_shaders::Element::F16;
    let is_usable = |adapter: &&Adapter| adapter.lacks.is_empty() && (!needs_f16 || adapter.has_f16);
    let Some(index) = adapters().iter().find(is_usable).map(|adapter| adapter.index) else {
        eprintln!("skipped on the GPU: no adapter for {element:?}");
        let is_ci = std::env::var("CI").is_ok_and(|got| got == "true");
        assert!(!is_ci, "CI has to have a Vulkan device");
        return None;
    };
    let opened = Gpu::open(Some(index), element, &Opening::default());
    Some(opened.expect("an adapter that is listed as usable"))
}
