//! The frames of a video, one by one.

use std::ffi::OsString;
use std::io::{self, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::children::Child;
use super::ffmpeg::{Program, Tools};
use super::{Frame, Input, Place, Video, input_args, ppm, probe};
use crate::error::{Error, Result};
use crate::input::pipeline::Item;
use crate::output::console;

/// How long ffmpeg may take to end after its last frame.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes of the pipe that are read at a time.
const BUFFER: usize = 256 << 10;

/// Iterator over the frames of a video; nothing is opened before the first is asked for.
///
/// A video that can't be read gives one broken item; one that breaks off, its frames and then an error.
pub struct Frames {
    input: Input,
    name: String,
    stride: u64,
    tools: Arc<Tools>,
    state: State,
}

enum State {
    NotBegun,
    Running(Box<Running>),
    Over,
}

struct Running {
    video: Arc<Video>,
    /// Whether the video's number of frames is more than an estimate.
    is_counted: bool,
    child: Child,
    pictures: BufReader<ChildStdout>,
    n_taken: u64,
    watch: Option<Watch>,
}

impl Frames {
    /// Every `stride`-th frame of `input`, which is called `name`.
    pub fn new(input: Input, name: String, stride: u64, tools: Arc<Tools>) -> Self {
        Self { input, name, stride: stride.max(1), tools, state: State::NotBegun }
    }

    fn begin(&self) -> Result<Running> {
        let from = input_args(&self.input, &self.tools)?;
        let is_live = !matches!(self.input, Input::File(_));
        let patience = if is_live { self.tools.patience() } else { self.tools.local_patience() };
        let facts = probe::probe(&self.tools, &from, patience)?;
        let mut args: Vec<OsString> =
            ["-nostdin", "-hide_banner", "-loglevel", "error"].map(OsString::from).into();
        args.extend(from);
        args.extend(["-map", "0:V:0"].map(OsString::from));
        if self.stride > 1 {
            args.extend(["-vf".into(), OsString::from(format!("select=not(mod(n\\,{}))", self.stride))]);
        }
        args.extend(self.tools.every_frame_once()?.map(OsString::from));
        args.extend(["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "pipe:1"].map(OsString::from));
        let mut child = self.tools.start(Program::Ffmpeg, |command| {
            command.args(&args).stdout(Stdio::piped());
        })?;
        let stdout = child.stdout.take().ok_or_else(|| Error::failed("ffmpeg has no standard output"))?;
        // Frames that are passed over take their time too.
        let passed_over = Duration::try_from_secs_f64(self.stride as f64 / facts.rate.per_second());
        let patience = patience.saturating_add(passed_over.unwrap_or(Duration::MAX));
        let watch = is_live.then(|| Watch::start(patience, child.killer())).transpose()?;
        let video = Video {
            name: self.name.clone().into(),
            rate: facts.rate,
            n_frames: facts.n_frames,
            stride: self.stride,
        };
        let pictures = BufReader::with_capacity(BUFFER, stdout);
        let is_counted = facts.is_counted;
        Ok(Running { video: Arc::new(video), is_counted, child, pictures, n_taken: 0, watch })
    }
}

impl Iterator for Frames {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if let State::NotBegun = self.state {
            match self.begin() {
                Ok(running) => self.state = State::Running(Box::new(running)),
                Err(error) => {
                    self.state = State::Over;
                    return Some(Item::Broken(self.name.clone(), Error::named(&self.name, error)));
                }
            }
        }
        let State::Running(running) = &mut self.state else { return None };
        let read = match running.next() {
            Ok(Some(frame)) => return Some(Item::Frame(frame)),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        let State::Running(running) = std::mem::replace(&mut self.state, State::Over) else { return None };
        let is_file = matches!(self.input, Input::File(_));
        let (video, n_taken) = (Arc::clone(&running.video), running.n_taken);
        let error = Error::named(&self.name, running.end(read, is_file).err()?);
        if n_taken == 0 {
            return Some(Item::Broken(self.name.clone(), error));
        }
        let number = n_taken * self.stride + 1;
        Some(Item::Cut(Place { video, number }, error))
    }
}

impl Running {
    fn next(&mut self) -> io::Result<Option<Frame>> {
        if let Some(watch) = &self.watch {
            watch.look(true);
        }
        let image = ppm::read(&mut self.pictures);
        if let Some(watch) = &self.watch {
            watch.look(false);
        }
        Ok(image?.map(|image| {
            let number = self.n_taken * self.video.stride + 1;
            self.n_taken += 1;
            Frame { place: Place { video: Arc::clone(&self.video), number }, image }
        }))
    }

    /// Waits for ffmpeg's end and says whether that was all of the video; `read` is how the reading ended.
    fn end(self, read: io::Result<()>, is_file: bool) -> Result<()> {
        let Running { video, is_counted, mut child, pictures, n_taken, watch } = self;
        // Should it still write, it notices now.
        drop(pictures);
        let status = child.wait(GRACE).map_err(|error| Error::named("ffmpeg", error))?;
        let complaints = child.complaints();
        let told = if complaints.is_empty() { String::new() } else { format!(": {complaints}") };
        let of = video.n_frames.map(|n| format!(" of {n}")).unwrap_or_default();
        let after = format!("after {} frame(s){of}", n_taken * video.stride);
        if let Some(seconds) = watch.and_then(|watch| watch.lost_patience()) {
            return Err(Error::failed(format!("no frame for {seconds} s, {after}{told}")));
        }
        let Some(status) = status else {
            return Err(Error::failed(format!("ffmpeg does not end, {after}{told}")));
        };
        if !status.success() {
            return Err(Error::failed(format!("ffmpeg failed ({status}) {after}{told}")));
        }
        read.map_err(|error| Error::named(&format!("ffmpeg's pictures can't be read {after}"), error))?;
        if n_taken == 0 {
            return Err(Error::failed(format!("holds no frame{told}")));
        }
        // It goes on after damage. What tells a file that is cut off from one with a scratch is what is missing. A
        // stream has no end to fall short of, unless its frames were counted, as in a file that a server has.
        let expected = video.n_frames.map(|n| n.div_ceil(video.stride));
        let name = video.name.display();
        if complaints.is_empty() {
            if let Some(expected) = expected.filter(|&expected| is_counted && n_taken < expected) {
                console::warning(&format!("{name}: gave {n_taken} of {expected} frames"));
            }
            return Ok(());
        }
        let is_cut = match expected {
            Some(expected) => n_taken < expected && (is_file || is_counted),
            None => is_file,
        };
        if is_cut {
            return Err(Error::failed(format!("breaks off {after}{told}")));
        }
        console::warning(&format!("{name}: ffmpeg says{told}"));
        Ok(())
    }
}

/// Kills ffmpeg when it is waited for too long.
struct Watch(Arc<Shared>);

struct Shared {
    state: Mutex<Looking>,
    changed: Condvar,
    patience: Duration,
}

#[derive(Default)]
struct Looking {
    since: Option<Instant>,
    is_over: bool,
    has_killed: bool,
}

impl Watch {
    fn start(patience: Duration, kill: impl Fn() + Send + 'static) -> Result<Self> {
        let state = Mutex::new(Looking::default());
        let shared = Arc::new(Shared { state, changed: Condvar::new(), patience });
        let watched = Arc::clone(&shared);
        let watch = move || {
            if watched.until_late() {
                kill();
            }
        };
        let watcher = thread::Builder::new().name("ffmpeg-watch".into()).spawn(watch);
        watcher.map_err(|error| Error::named("can't start a thread", error))?;
        Ok(Self(shared))
    }

    /// Whether somebody waits from now on.
    fn look(&self, waits: bool) {
        self.0.lock().since = waits.then(Instant::now);
        self.0.changed.notify_all();
    }

    /// After how many seconds it was killed, if it was.
    fn lost_patience(&self) -> Option<f64> {
        self.0.lock().has_killed.then(|| self.0.patience.as_secs_f64())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Looking> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waited for too long, before it was over.
    fn until_late(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return false;
            }
            let waited = state.since.map(|since| since.elapsed());
            let left = waited.map(|waited| self.patience.saturating_sub(waited));
            state = match left {
                Some(Duration::ZERO) => {
                    state.has_killed = true;
                    return true;
                }
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn only_waiting_costs_patience() {
        let (sender, killed) = channel();
        let watch = Watch::start(Duration::from_millis(5), move || {
            let _ = sender.send(());
        })
        .unwrap();
        assert_eq!(watch.lost_patience(), None);
        watch.look(true);
        killed.recv().unwrap();
        assert_eq!(watch.lost_patience(), Some(0.005));
    }

    #[test]
    fn a_watch_that_is_over_kills_nothing() {
        let (sender, killed) = channel::<()>();
        let watch = Watch::start(Duration::from_secs(1000), move || {
            let _ = sender.send(());
        })
        .unwrap();
        watch.look(true);
        watch.look(false);
        drop(watch);
        // The sender goes with the watcher.
        assert!(killed.recv().is_err());
    }
}
