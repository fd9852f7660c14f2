//! ferroyolo: tests.
