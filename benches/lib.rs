//! ferroyolo: benches.
