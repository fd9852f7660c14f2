//! CPU kernels of ferroyolo: arithmetic on NHWC activations that live in one arena.
//!
//! Every kernel takes a [`Context`] (instruction set and threads), the [`Arena`], and [`View`]s, which are windows on
//! it. Kernels check in constant time that their views lie inside the arena and that what they write is disjoint from
//! what they read, and panic otherwise: a bad view is a bug of the planner, not bad input. Results are identical, to
//! the bit, for every number of threads and for every position in a batch.
//!
//! Convolutions read their padding from the halo of the input view, which has to be zero; see [`clear_halo`].

mod activation;
mod arena;
mod attention;
mod average;
mod conv;
mod decode;
mod depthwise;
mod elementwise;
mod isa;
mod pad;
mod pool;
mod resize;
mod simd;
mod threads;
mod view;

pub use activation::{Activation, sigmoid};
pub use arena::{Arena, ArenaError};
pub use attention::{Attention, attention, attention_scratch_len};
pub use average::{avg_pool2d, global_avg_pool};
pub use conv::{
    Conv2d, ConvSpec, ConvTranspose2d, PackedConv, PackedConvTranspose, conv_transpose2d, conv2d,
};
pub use decode::{dfl, dfl_planar, load_planar, max_over_channels, store_planar};
pub use depthwise::{Depthwise2d, DepthwiseSpec, PackedDepthwise, depthwise2d};
pub use elementwise::{activate, add, clear_halo, copy};
pub use isa::Isa;
pub use pad::zero_pad;
pub use pool::{MaxPool2d, max_pool2d};
pub use resize::{resize_bilinear, upsample_nearest};
pub use threads::{Threads, ThreadsError};
pub use view::{Scratch, View};

/// What a kernel runs with: an instruction set and a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The instruction set that the kernel uses.
    pub isa: Isa,
    /// The threads that the kernel may use.
    pub threads: &'a Threads,
}
