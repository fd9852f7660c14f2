//! What of wgpu can be had only by `unsafe`: the one place for it outside of the kernels.

#![expect(unsafe_code, reason = "wgpu asks for it where it does not vouch for its own safety")]

/// Leave to ask a device for what wgpu is not done with; of that, only cooperative matrices are asked for.
pub(super) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: this is an acknowledgement that such features may have bugs, not a promise about values. Whatever is
    // computed with them is held against an answer that is known (`matrix`) before it is used.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
