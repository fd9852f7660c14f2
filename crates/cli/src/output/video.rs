//! Annotated videos, which ffmpeg encodes.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ferroyolo::Image;

use super::file::create_beside;
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
        // ffmpeg writes over the empty file that keeps the name from others.
        let (_, temporary) = create_beside(target, "part").map_err(|error| Error::at(target, error))?;
        let mut file = OsString::from("file:");
        file.push(&temporary);
        args.push(file);
        let mut writer = Self { child: None, temporary, target: target.into(), shape };
        let child = tools.start(Program::Ffmpeg, |command| {
            command.args(&args).stdin(Stdio::piped());
            // Ctrl-C in the terminal is for this program, which ends the video in order.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(command, 0);
        });
        writer.child = Some(child.inspect_err(|_| writer.discard())?);
        Ok(writer)
    }

    /// Adds frame `number` of its video; errors if it has another size than the first.
    pub fn write(&mut self, image: &Image, number: u64) -> Result<()> {
        let target = self.target.display();
        if image.shape() != self.shape {
            let [height, width] = image.shape();
            let [first_height, first_width] = self.shape;
            return Err(Error::failed(format!(
                "{target}: ends before frame {number}, which is {width}x{height}, unlike the first, which is \
                 {first_width}x{first_height}"
            )));
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
            self.discard();
            Error::named(&self.target.display().to_string(), error)
        })
    }

    fn discard(&self) {
        // It may be gone; the error that led here is the one to tell.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Drop for VideoWriter {
    fn drop(&mut self) {
        // Whoever wants to know how it ended calls `finish`.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::video::Children;

    #[test]
    fn two_writers_of_one_process_number_do_not_meet() {
        let children = Children::default();
        let tools = Tools::new(children.clone(), Duration::from_secs(600));
        let dir = tempfile::tempdir().unwrap();
        let begin = |name: &str| VideoWriter::create(&tools, &dir.path().join(name), [16, 16], "10/1");
        let mut first = match begin("a.mp4") {
            Err(error) if error.chain().contains("not in PATH") && std::env::var_os("CI").is_none() => {
                eprintln!("skipped: ffmpeg not found");
                return;
            }
            writer => writer.unwrap(),
        };
        let mut second = begin("b.mp4").unwrap();
        let frame = Image::from_rgb8(16, 16, vec![0; 16 * 16 * 3]).unwrap();
        for number in 1..=3 {
            first.write(&frame, number).unwrap();
            second.write(&frame, number).unwrap();
        }
        let turned = Image::from_rgb8(12, 16, vec![0; 12 * 16 * 3]).unwrap();
        let error = first.write(&turned, 4).unwrap_err().chain();
        assert!(error.contains("a.mp4: ends before frame 4, which is 12x16, unlike"), "{error}");
        for (writer, name) in [(second, "b.mp4"), (first, "a.mp4")] {
            assert_eq!(writer.finish().unwrap(), dir.path().join(name));
            assert!(fs::metadata(dir.path().join(name)).unwrap().len() > 0, "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        // One that can't begin leaves nothing behind, either.
        children.close();
        assert!(VideoWriter::create(&tools, &dir.path().join("c.mp4"), [16, 16], "10/1").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
