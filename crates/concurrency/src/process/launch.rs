//! Starting processes, and the two ends of their channel.

use std::fmt;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::command::WorkerCommand;
use super::stderr::Stderr;

/// Tells a worker by which channel it was started.
pub(crate) const CHANNEL_ENV: &str = "FERROYOLO_WORKER_CHANNEL";

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) signal: Option<i32>,
    pub(crate) code: Option<i32>,
}

/// A process that was started.
pub(crate) trait Process: Send + fmt::Debug {
    /// Kills it. Called only before it was waited for, so that its number is its own.
    fn kill(&mut self);

    /// Waits for its end. Called once.
    fn wait(&mut self) -> Exit;

    fn id(&self) -> u32;
}

/// A process with its channel.
pub(crate) struct Launched {
    pub(crate) process: Box<dyn Process>,
    /// Dropping it tells the worker to leave.
    pub(crate) to_worker: Box<dyn Write + Send>,
    pub(crate) from_worker: Box<dyn Read + Send>,
    pub(crate) stderr: Option<Box<dyn Read + Send>>,
}

/// Starts workers. A trait, so that a start can be made to fail.
pub(crate) trait Launch: Send + Sync + 'static {
    fn launch(&self) -> io::Result<Launched>;
}

impl Launch for WorkerCommand {
    fn launch(&self) -> io::Result<Launched> {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.stderr(match self.stderr {
            Stderr::Forward | Stderr::Discard => Stdio::piped(),
            Stderr::Inherit => Stdio::inherit(),
        });
        // Ctrl-C in a terminal goes to the whole group in front; workers are to finish what they do.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(windows)]
        {
            const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
            std::os::windows::process::CommandExt::creation_flags(&mut command, CREATE_NEW_PROCESS_GROUP);
        }
        #[cfg(unix)]
        if !self.pipes {
            return launch_with_socket(command);
        }
        launch_with_pipes(command)
    }
}

#[cfg(unix)]
fn launch_with_socket(mut command: Command) -> io::Result<Launched> {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    let (ours, theirs) = UnixStream::pair()?;
    let to_worker = ours.try_clone()?;
    command.env(CHANNEL_ENV, "socket").stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().map(|stderr| Box::new(stderr) as Box<dyn Read + Send>);
    Ok(Launched {
        process: Box::new(child),
        to_worker: Box::new(HalfSocket(to_worker)),
        from_worker: Box::new(ours),
        stderr,
    })
}

/// The writing half of a socket, which says that it ends when it is dropped.
#[cfg(unix)]
pub(crate) struct HalfSocket(pub(crate) std::os::unix::net::UnixStream);

#[cfg(unix)]
impl Write for HalfSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
impl Drop for HalfSocket {
    fn drop(&mut self) {
        // It fails only if the other side is gone.
        let _result = self.0.shutdown(std::net::Shutdown::Write);
    }
}

fn launch_with_pipes(mut command: Command) -> io::Result<Launched> {
    let mut child = command.env(CHANNEL_ENV, "pipes").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        unreachable!("both were asked for");
    };
    let stderr = child.stderr.take().map(|stderr| Box::new(stderr) as Box<dyn Read + Send>);
    Ok(Launched {
        process: Box::new(child),
        to_worker: Box::new(stdin),
        from_worker: Box::new(stdout),
        stderr,
    })
}

impl Process for Child {
    fn kill(&mut self) {
        // What the worker started dies with it, if it stayed in its group.
        #[cfg(unix)]
        if let Some(group) = i32::try_from(Child::id(self)).ok().and_then(rustix::process::Pid::from_raw) {
            // It fails only if nobody is left in the group.
            let _result = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _result = Child::kill(self);
    }

    fn wait(&mut self) -> Exit {
        match Child::wait(self) {
            Ok(status) => exit_of(status),
            // Somebody else has waited for our child: how it ended can't be known.
            Err(_) => Exit::default(),
        }
    }

    fn id(&self) -> u32 {
        Child::id(self)
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    let signal = None;
    Exit { signal, code: status.code() }
}
