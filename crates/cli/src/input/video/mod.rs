//! Videos, streams and cameras, by way of the programs `ffmpeg` and `ffprobe`.
//!
//! ffmpeg decodes and hands over one PPM picture after the other through a pipe. So each frame says its size itself, and
//! turned or changing videos come out as they are to be shown. A frame is taken when the network has room for it; until
//! then ffmpeg waits, and memory stays the same for any length.

mod camera;
mod children;
mod ffmpeg;
mod frames;
mod ppm;
mod probe;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferroyolo::Image;

pub use children::{Child, Children};
pub use ffmpeg::{Program, Tools};
pub use frames::Frames;
pub use probe::Rate;

/// Extensions of files that are given to ffmpeg, in lower case.
const EXTENSIONS: [&str; 20] = [
    "asf", "avi", "flv", "h264", "hevc", "m2ts", "m3u8", "m4v", "mjpg", "mjpeg", "mkv", "mov", "mp4", "mpeg",
    "mpg", "mts", "ogv", "ts", "webm", "wmv",
];

/// Whether the extension of `name` is one of a video, in any case.
pub fn is_video_name(name: &str) -> bool {
    is_video_path(Path::new(name))
}

/// Whether the extension of `path` is one of a video, in any case.
pub fn is_video_path(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// A video or stream in the network.
    Url(String),
    /// A camera by its number, from 0.
    Camera(u32),
    /// A camera by its device file.
    Device(PathBuf),
}

impl Input {
    /// The camera that `source` means, if it means one: a number, or the file of a video device.
    pub fn camera(source: &Path) -> Option<Self> {
        let text = source.to_str()?;
        if let Some(device) = text.strip_prefix("/dev/video")
            && cfg!(target_os = "linux")
            && is_number(device)
        {
            return Some(Input::Device(source.into()));
        }
        (is_number(text) && text.len() <= 3 && !source.exists())
            .then(|| text.parse().ok().map(Input::Camera))?
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A video that is being read.
#[derive(Debug, PartialEq, Eq)]
pub struct Video {
    /// What to call it.
    pub name: PathBuf,
    /// Frames in a second.
    pub rate: Rate,
    /// Frames of the whole video, if that is known.
    pub n_frames: Option<u64>,
    /// Every so many frames one is taken.
    pub stride: u64,
}

/// A frame's place in its video.
#[derive(Clone, Debug)]
pub struct Place {
    /// The video; the same object for all its frames.
    pub video: Arc<Video>,
    /// The number of the frame, from 1; frames that are passed over count.
    pub number: u64,
}

impl Place {
    /// Seconds from the beginning of the video, by its frame rate.
    pub fn time_s(&self) -> f64 {
        (self.number - 1) as f64 / self.video.rate.per_second()
    }
}

/// A frame of a video.
#[derive(Debug)]
pub struct Frame {
    /// Where it belongs.
    pub place: Place,
    /// Its pixels.
    pub image: Image,
}

/// The arguments by which ffmpeg and ffprobe read `input`.
fn input_args(input: &Input, tools: &Tools) -> crate::error::Result<Vec<OsString>> {
    let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
    Ok(match input {
        // A playlist may name other files, but nothing in the network; and one in the network nothing here.
        Input::File(path) => {
            let mut name = OsString::from("file:");
            name.push(path);
            let mut list = args(&["-protocol_whitelist", "file,crypto,data", "-i"]);
            list.push(name);
            list
        }
        Input::Url(url) => {
            let allowed = "http,https,httpproxy,tcp,tls,udp,rtp,rtsp,rtmp,rtmps,rtmpt,srt,crypto,data";
            args(&["-protocol_whitelist", allowed, "-i", url])
        }
        Input::Camera(idx) => camera::args(*idx, tools)?,
        Input::Device(path) => {
            let mut list = args(&["-f", "v4l2", "-i"]);
            list.push(path.into());
            list
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn videos_are_known_by_their_names() {
        for (name, is_video) in
            [("a.MP4", true), ("b/c.mkv", true), ("a.gif", false), ("mp4", false), ("a", false)]
        {
            assert_eq!(is_video_name(name), is_video, "{name}");
        }
    }

    #[test]
    fn cameras_are_numbers() {
        assert_eq!(Input::camera(Path::new("0")), Some(Input::Camera(0)));
        assert_eq!(Input::camera(Path::new("12")), Some(Input::Camera(12)));
        for other in ["", "-1", "1.5", "0x1", "a", "./0", "20261122"] {
            assert_eq!(Input::camera(Path::new(other)), None, "{other}");
        }
        let device = Path::new("/dev/video2");
        let expected = cfg!(target_os = "linux").then(|| Input::Device(device.into()));
        assert_eq!(Input::camera(device), expected);
    }

    #[test]
    fn time_follows_from_the_rate() {
        let rate = Rate::parse("30000/1001").unwrap();
        let video = Arc::new(Video { name: "a.mp4".into(), rate, n_frames: None, stride: 1 });
        assert_eq!(Place { video: Arc::clone(&video), number: 1 }.time_s(), 0.0);
        assert!((Place { video, number: 31 }.time_s() - 1.001).abs() < 1e-9);
    }
}
