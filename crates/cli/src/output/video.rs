//! Annotated videos, which ffmpeg encodes.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ferroyolo::Image;

use crate::error::{Error, Result};
use crate::input::video::{Child, Program, Tools};

/// How long ffmpeg may take to end a file after the last frame, which it writes once more from the beginning.
const GRACE: Duration = Duration::from_secs(900);

/// An `.mp4` file that grows frame by frame, and has its name only when it is whole.
pub struct VideoWriter {
    child: Option<Child>,
    temporary: PathBuf,
    target: PathBuf,
    shape: [usize; 2],
}

impl VideoWriter {
    /// Begins `target` with frames of `shape`, height and width, at `rate`, frames in a second as a fraction.
    ///
    /// H.264 where ffmpeg can encode that, else MPEG-4; both need even sides, so an odd side gets a black line.
    pub fn create(tools: &Tools, target: &Path, shape: [usize; 2], rate: &str) -> Result<Self> {
        let temporary = target.with_file_name(format!(".{}.part", std::process::id()));
        let [height, width] = shape;
        let raw =
            ["-nostdin", "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"];
        let mut args: Vec<OsString> = raw.map(OsString::from).into();
        args.extend(["-video_size".into(), OsString::from(format!("{width}x{height}"))]);
        args.extend(["-framerate", rate, "-i", "pipe:0", "-an"].map(OsString::from));
        args.extend(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"].map(OsString::from));
        if tools.has_x264()? {
            args.extend(["-c:v", "libx264", "-preset", "veryfast", "-crf", "20"].map(OsString::from));
        } else {
            args.extend(["-c:v", "mpeg4", "-q:v", "3"].map(OsString::from));
        }
        args.extend(["-movflags", "+faststart", "-f", "mp4"].map(OsString::from));
        let mut file = OsString::from("file:");
        file.push(&temporary);
        args.push(file);
        let child = tools.start(Program::Ffmpeg, |command| {
            command.args(&args).stdin(Stdio::piped());
            // Ctrl-C in the terminal is for this program, which ends the video in order.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(command, 0);
        })?;
        Ok(Self { child: Some(child), temporary, target: target.into(), shape })
    }

    /// Adds a frame.
    pub fn write(&mut self, image: &Image) -> Result<()> {
        let target = self.target.display();
        if image.shape() != self.shape {
            let (got, expected) = (image.shape(), self.shape);
            return Err(Error::failed(format!("{target}: got a frame of {got:?}, expected {expected:?}")));
        }
        let stdin = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        let Some(stdin) = stdin else { return Err(Error::failed(format!("{target}: is ended already"))) };
        match stdin.write_all(image.pixels()) {
            Ok(()) => Ok(()),
            // Why ffmpeg has ended is more to the point.
            Err(error) => Err(self.end().err().unwrap_or_else(|| Error::at(&self.target, error))),
        }
    }

    /// Ends the file and gives it its name, which is returned.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.end().map(|()| std::mem::take(&mut self.target))
    }

    fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let ended =
            child.wait(GRACE).map_err(|error| Error::named("ffmpeg", error)).and_then(
                |status| match status {
                    Some(status) if status.success() => fs::rename(&self.temporary, &self.target)
                        .map_err(|error| Error::at(&self.target, error)),
                    Some(status) => {
                        Err(Error::failed(format!("ffmpeg failed ({status}): {}", child.complaints())))
                    }
                    None => Err(Error::failed("ffmpeg did not end, or was ended")),
                },
            );
        ended.map_err(|error| {
            // What there is can't be played.
            let _ = fs::remove_file(&self.temporary);
            Error::named(&self.target.display().to_string(), error)
        })
    }
}

impl Drop for VideoWriter {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `finish`.
        let _ = self.end();
    }
}
