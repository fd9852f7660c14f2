//! Pictures on their way in: what the sources name, and decoding ahead of the network.

pub mod pipeline;
pub mod sources;
pub mod video;
