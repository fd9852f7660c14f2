//! What holds when workers misbehave: a test for each fault, with real processes.
//!
//! `cargo test -p ferroyolo-concurrency --features fault-injection --test faults`
//!
//! F1 to F16 are the names of the faults; the long campaign that mixes them is `examples/fault_campaign.rs`.

#![cfg(unix)]
#![forbid(unsafe_code)]

mod pool;
mod support;
mod system;
