//! What ffprobe tells about a video: its frame rate and length.

use std::ffi::OsString;
use std::time::Duration;

use serde_json::Value;

use super::ffmpeg::{Program, Tools};
use crate::error::{Error, Result};

/// Frames in a second where a video tells nothing that makes sense.
const DEFAULT_RATE: Rate = Rate { frames: 25, seconds: 1 };

/// More frames in a second than any video has; some files tell the ticks of their clock.
const MAX_PER_SECOND: f64 = 1000.0;

/// The largest number in a rate that every encoder takes.
const MAX_TERM: u64 = 65_535;

/// So many frames in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    frames: u64,
    seconds: u64,
}

impl Rate {
    /// Reads `30000/1001`; nothing if that is no sensible rate.
    pub fn parse(text: &str) -> Option<Self> {
        let (frames, seconds) = text.split_once('/')?;
        let rate = Self { frames: frames.parse().ok()?, seconds: seconds.parse().ok()? };
        let is_sensible = rate.frames > 0 && rate.seconds > 0 && rate.per_second() <= MAX_PER_SECOND;
        is_sensible.then_some(rate)
    }

    /// Frames in a second.
    pub fn per_second(self) -> f64 {
        self.frames as f64 / self.seconds as f64
    }

    /// The rate of every `stride`-th frame, in the form that ffmpeg takes.
    pub fn with_stride(self, stride: u64) -> String {
        let (mut frames, mut seconds) = reduced(self.frames, self.seconds.saturating_mul(stride));
        if frames > MAX_TERM || seconds > MAX_TERM {
            // To three digits or more, with terms that are small enough.
            let per_second = frames as f64 / seconds as f64;
            let whole = (MAX_TERM as f64 / per_second.max(1.0)).floor().max(1.0);
            (frames, seconds) = reduced((per_second * whole).round().max(1.0) as u64, whole as u64);
        }
        format!("{frames}/{seconds}")
    }
}

/// The same fraction in lowest terms.
fn reduced(frames: u64, seconds: u64) -> (u64, u64) {
    let (mut divisor, mut rest) = (frames, seconds);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (frames / divisor.max(1), seconds / divisor.max(1))
}

/// What is known of a video before it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// Frames in a second, on average.
    pub rate: Rate,
    /// Frames of the whole video, if they are counted or the duration is known.
    pub n_frames: Option<u64>,
    /// Whether [`Facts::n_frames`] was counted when the file was made, rather than estimated by the duration.
    pub is_counted: bool,
}

/// Asks ffprobe, for no longer than `patience`, about what `input_args` name; errors do not name it.
pub fn probe(tools: &Tools, input_args: &[OsString], patience: Duration) -> Result<Facts> {
    // Not the cover pictures of music, which V leaves out.
    let entries = "stream=avg_frame_rate,r_frame_rate,nb_frames,duration:format=duration";
    let asked = ["-v", "error", "-select_streams", "V:0", "-show_entries", entries, "-of", "json"];
    let args: Vec<OsString> = asked.iter().map(OsString::from).chain(input_args.iter().cloned()).collect();
    let printed = tools.run(Program::Ffprobe, &args, patience)?;
    let told: Value = serde_json::from_str(&printed)
        .map_err(|error| Error::failed(format!("ffprobe prints what can't be read: {error}")))?;
    facts(&told).ok_or_else(|| Error::failed("holds no video"))
}

fn facts(told: &Value) -> Option<Facts> {
    let stream = told["streams"].as_array()?.first()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rate = |key: &str| Rate::parse(&text(&stream[key])?);
    let rate = rate("avg_frame_rate").or_else(|| rate("r_frame_rate")).unwrap_or(DEFAULT_RATE);
    let counted = text(&stream["nb_frames"]).and_then(|n| n.parse().ok()).filter(|&n| n > 0);
    let seconds = [&stream["duration"], &told["format"]["duration"]];
    let seconds = seconds.into_iter().find_map(|value| text(value)?.parse::<f64>().ok());
    let by_duration = seconds.filter(|seconds| (0.0..1e9).contains(seconds));
    let by_duration = by_duration.map(|seconds| (seconds * rate.per_second()).round() as u64);
    let n_frames = counted.or(by_duration.filter(|&n| n > 0));
    Some(Facts { rate, n_frames, is_counted: counted.is_some() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rates_are_read_and_divided() {
        let check = |text: &str, stride: u64, expected: &str| {
            assert_eq!(
                Rate::parse(text).map(|rate| rate.with_stride(stride)).as_deref(),
                Some(expected),
                "{text}"
            );
        };
        check("30/1", 1, "30/1");
        check("30/1", 3, "10/1");
        check("30000/1001", 1, "30000/1001");
        check("30000/1001", 2, "15000/1001");
        check("25/1", 60, "5/12");
        // The average of a phone's video.
        check("9000000/300001", 1, "30/1");
        check("1000003/33333", 1, "65521/2184");
        for bad in ["0/0", "0/1", "1/0", "90000/1", "-25/1", "25", "a/b", ""] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn lengths_are_counted_or_estimated() {
        let n_frames = |told: Value| facts(&told).map(|facts| facts.n_frames);
        let stream = |stream: Value| json!({"streams": [stream], "format": {"duration": "2.0"}});
        assert_eq!(n_frames(stream(json!({"nb_frames": "12", "avg_frame_rate": "30/1"}))), Some(Some(12)));
        assert_eq!(n_frames(stream(json!({"avg_frame_rate": "30/1"}))), Some(Some(60)));
        assert_eq!(n_frames(stream(json!({"avg_frame_rate": "30/1", "duration": "1.0"}))), Some(Some(30)));
        assert_eq!(
            n_frames(stream(json!({"avg_frame_rate": "0/0", "r_frame_rate": "10/1"}))),
            Some(Some(20))
        );
        assert_eq!(n_frames(json!({"streams": [{"avg_frame_rate": "25/1"}], "format": {}})), Some(None));
        let is_counted = |stream: Value| facts(&json!({"streams": [stream]})).unwrap().is_counted;
        assert!(is_counted(json!({"nb_frames": "12"})));
        assert!(!is_counted(json!({"nb_frames": "N/A", "duration": "1.0"})));
        assert_eq!(n_frames(json!({"streams": []})), None);
        assert_eq!(n_frames(json!({})), None);
    }
}
