//! Cameras, as each system names them to ffmpeg.

use std::ffi::OsString;
use std::path::Path;

use super::ffmpeg::{Program, Tools};
use crate::error::{Error, Result};

/// The arguments by which ffmpeg reads the camera with the number `idx`.
pub fn args(idx: u32, tools: &Tools) -> Result<Vec<OsString>> {
    let list = match std::env::consts::OS {
        "macos" => vec![
            "-f".into(),
            "avfoundation".into(),
            "-framerate".into(),
            "30".into(),
            "-i".into(),
            format!("{idx}:none"),
        ],
        "windows" => {
            // It fails, since the input does not exist, but lists the cameras before.
            let ask = ["-hide_banner", "-list_devices", "true", "-f", "dshow", "-i", "dummy"];
            let ended = tools.run_anyway(Program::Ffmpeg, &ask, tools.local_patience())?;
            let names = windows_names(&ended.stderr);
            let name = names.get(idx as usize).ok_or_else(|| {
                Error::failed(format!(
                    "there is no camera {idx}; there are {}: {}",
                    names.len(),
                    names.join(", ")
                ))
            })?;
            vec!["-f".into(), "dshow".into(), "-i".into(), format!("video={name}")]
        }
        _ => {
            let device = format!("/dev/video{idx}");
            if !Path::new(&device).exists() {
                return Err(Error::failed(format!("there is no camera {idx}, since there is no {device}")));
            }
            vec!["-f".into(), "v4l2".into(), "-i".into(), device]
        }
    };
    Ok(list.into_iter().map(OsString::from).collect())
}

/// The names of cameras in ffmpeg's list, of which each has a line `"Name" (video)`.
fn windows_names(told: &str) -> Vec<String> {
    let lines = told.split(['\n', ';']);
    let name = |line: &str| {
        line.split_once("\" (video)").and_then(|(name, _)| name.rsplit('"').next().map(str::to_owned))
    };
    lines.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_the_list() {
        let told = "\"HD Camera\" (video)\n  Alternative name \"@device_pnp\"\n\"Other\" (video)\n\"Microphone\" (audio)";
        assert_eq!(windows_names(told), ["HD Camera", "Other"]);
        assert!(windows_names("").is_empty());
    }
}
