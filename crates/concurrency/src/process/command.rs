//! What to start as a worker, and what it may use.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use super::stderr::Stderr;

/// The program that is started as a worker, with its arguments, environment and limits.
///
/// The program has to call [`worker::serve`](super::worker::serve) or a relative of it.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) envs: Vec<(OsString, OsString)>,
    pub(crate) limits: Limits,
    pub(crate) stderr: Stderr,
    pub(crate) pipes: bool,
    pub(crate) identity: String,
}

/// What one worker may use. On Unix only: other systems ignore it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of address space. A worker that wants more dies with [`JobError::OutOfMemory`](crate::JobError).
    pub address_space: Option<u64>,
    /// Seconds of processor time over the worker's life.
    pub cpu_s: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Whether a worker that crashes leaves a core file, if the system is set up so.
    pub core_files: bool,
}

impl WorkerCommand {
    /// Starts this very program again, without its arguments.
    ///
    /// # Errors
    ///
    /// If the program's path can't be found out.
    pub fn current_exe() -> io::Result<WorkerCommand> {
        Ok(WorkerCommand::new(std::env::current_exe()?))
    }

    /// Starts `program`, which has to be the worker itself: one that starts another process as the worker won't do, since
    /// a worker leaves if its parent is not the pool's process.
    pub fn new(program: impl Into<PathBuf>) -> WorkerCommand {
        WorkerCommand {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            limits: Limits::default(),
            stderr: Stderr::default(),
            pipes: cfg!(not(unix)),
            identity: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> WorkerCommand {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> WorkerCommand {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the worker's environment, which is this process' otherwise.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> WorkerCommand {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Sets what a worker may use. Without this it may use as much as this process, and leaves no core file.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> WorkerCommand {
        self.limits = limits;
        self
    }

    /// Sets what becomes of the worker's standard error.
    #[must_use]
    pub fn stderr(mut self, stderr: Stderr) -> WorkerCommand {
        self.stderr = stderr;
        self
    }

    /// Talks to the worker by pipes on its standard input and output, as is done where there are no socket pairs.
    ///
    /// The worker must not print to its standard output then: that breaks the protocol, and it is killed.
    #[must_use]
    pub fn pipes(mut self) -> WorkerCommand {
        self.pipes = true;
        self
    }

    /// Sets what build the worker has to be: [`Worker::identity`](super::worker::Worker::identity) has to be the same.
    /// This crate's version by default.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> WorkerCommand {
        self.identity = identity.into();
        self
    }
}
