//! Every kernel against a naive reference, on every instruction set of this CPU and for several numbers of threads.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod attention;
mod conv;
mod decode;
mod depthwise;
mod elementwise;
mod maps;
mod pool;
mod support;
