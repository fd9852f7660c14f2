//! Ending in order on Ctrl-C or SIGTERM.
//!
//! The first signal is a request that the program looks for; the second ends it at once, with the exit code that shells
//! give to a program killed by that signal. Workers of a [`ProcessPool`](super::ProcessPool) end in either case: drained
//! by the first, and with their parent by the second.
//!
//! ```no_run
//! use std::time::Duration;
//! use ferroyolo_concurrency::process::signals::Shutdown;
//! # fn next_picture() -> Option<Vec<u8>> { None }
//! # fn run(pool: &ferroyolo_concurrency::ProcessPool) -> Result<(), Box<dyn std::error::Error>> {
//! let shutdown = Shutdown::install()?;
//! while shutdown.requested().is_none() {
//!     let Some(picture) = next_picture() else { break };
//!     pool.submit(picture)?;
//! }
//! pool.drain(Duration::from_secs(30));
//! # Ok(())
//! # }
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// What asked the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Ctrl-C in the terminal, or SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Request {
    /// The exit code of a program that this signal killed, as shells give it: 130 or 143.
    pub fn exit_code(self) -> u8 {
        match self {
            Request::Interrupt => 130,
            Request::Terminate => 143,
        }
    }
}

/// Looks for SIGINT and SIGTERM from when it is installed until it is dropped.
#[derive(Debug)]
pub struct Shutdown {
    /// The signal that came, or 0.
    signal: Arc<AtomicUsize>,
    registered: Vec<signal_hook::SigId>,
}

impl Shutdown {
    /// Begins to look for signals.
    ///
    /// # Errors
    ///
    /// If the system does not let signals be handled.
    pub fn install() -> io::Result<Shutdown> {
        let signal = Arc::new(AtomicUsize::new(0));
        let has_come = Arc::new(AtomicBool::new(false));
        let mut shutdown = Shutdown { signal: Arc::clone(&signal), registered: Vec::new() };
        for (number, request) in [(SIGINT, Request::Interrupt), (SIGTERM, Request::Terminate)] {
            // In this order: the first signal finds the flag down, and raises it.
            let code = i32::from(request.exit_code());
            shutdown.registered.push(flag::register_conditional_shutdown(
                number,
                code,
                Arc::clone(&has_come),
            )?);
            shutdown.registered.push(flag::register_usize(number, Arc::clone(&signal), number as usize)?);
            shutdown.registered.push(flag::register(number, Arc::clone(&has_come))?);
        }
        Ok(shutdown)
    }

    /// What asked the program to end, if anything has.
    pub fn requested(&self) -> Option<Request> {
        match self.signal.load(Ordering::Acquire) {
            0 => None,
            signal if signal == SIGTERM as usize => Some(Request::Terminate),
            _ => Some(Request::Interrupt),
        }
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}
