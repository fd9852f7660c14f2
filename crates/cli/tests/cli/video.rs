//! Videos, streams and cameras, with the ffmpeg that is installed.

use std::io::Cursor;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::server::{Reply, Server};
use crate::support::{Place, arg, sample};

/// Frames of the clip.
const N_FRAMES: usize = 12;

/// Whether ffmpeg and ffprobe are there.
///
/// It is told on stderr if they are not, and is a failure where they must be.
fn has_ffmpeg() -> bool {
    let is_there = |program: &str| {
        let run = Command::new(program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let found = is_there("ffmpeg") && is_there("ffprobe");
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !is_ci, "ffmpeg is missing");
    if !found {
        eprintln!("skipped: ffmpeg not found");
    }
    found
}

fn ffmpeg(place: &Place, args: &[&str]) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(args).current_dir(place.path(""));
    let output = command.output().expect("ffmpeg runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A figure of the first video stream, as ffprobe tells it.
fn probed(path: &Path, entry: &str) -> String {
    let entries = format!("stream={entry}");
    let args = [
        "-v",
        "error",
        "-count_frames",
        "-select_streams",
        "v:0",
        "-show_entries",
        &entries,
        "-of",
        "csv=p=0",
    ];
    let output = Command::new("ffprobe").args(args).arg(path).output().expect("ffprobe runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// A clip at ten frames a second over which the sample picture moves; more options for ffmpeg choose its form.
fn clip(place: &Place, name: &str, (width, height): (u32, u32), options: &[&str]) {
    let scene = image::load_from_memory(sample()).expect("a picture").to_rgb8();
    let scene = image::imageops::resize(
        &scene,
        width + 4 * N_FRAMES as u32,
        height,
        image::imageops::FilterType::Triangle,
    );
    for idx in 0..N_FRAMES as u32 {
        let frame = image::imageops::crop_imm(&scene, 4 * idx, 0, width, height).to_image();
        let path = place.path(&format!("{name}-frames/{idx:02}.png"));
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        frame.save(path).expect("a picture");
    }
    std::fs::create_dir_all(place.path(name).parent().expect("a parent")).expect("a directory");
    let frames = format!("{name}-frames/%02d.png");
    let common = ["-framerate", "10", "-i", &frames, "-pix_fmt", "yuv420p"];
    ffmpeg(place, &[&common, options, &[name]].concat());
    std::fs::remove_dir_all(place.path(&format!("{name}-frames"))).expect("removed");
}

fn mp4(place: &Place, name: &str) {
    clip(place, name, (320, 240), &["-c:v", "mpeg4", "-q:v", "2", "-movflags", "+faststart"]);
}

/// What was found, without where and how fast.
fn found(object: &Value) -> (&Value, &Value) {
    (&object["shape"], &object["results"])
}

#[test]
fn a_frame_is_what_the_same_picture_is() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    std::fs::create_dir(place.path("frames")).expect("a directory");
    ffmpeg(&place, &["-i", "clip.mp4", "frames/%02d.png"]);
    let pictures = place.run(&["predict", "-s", "frames", "--json", "-"]).expect(0).json_lines();
    let n_found: usize =
        pictures.iter().filter_map(|object| object["results"].as_array().map(Vec::len)).sum();
    assert!(n_found >= N_FRAMES, "the scene has to have something in it: {n_found}");
    for policy in ["shared", "pool", "process"] {
        for batch in ["1", "3"] {
            let args = [
                "predict",
                "-s",
                "clip.mp4",
                "--json",
                "-",
                "--policy",
                policy,
                "--workers",
                "2",
                "--batch",
                batch,
            ];
            let frames = place.run(&args).expect(0).json_lines();
            assert_eq!(frames.len(), N_FRAMES);
            for (idx, (frame, picture)) in frames.iter().zip(&pictures).enumerate() {
                assert_eq!(found(frame), found(picture), "{policy} {batch}, frame {idx}");
                assert_eq!((&frame["path"], &frame["frame"]), (&"clip.mp4".into(), &(idx + 1).into()));
                assert!((frame["time_s"].as_f64().expect("a time") - idx as f64 / 10.0).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn frames_are_told_with_their_numbers_among_other_sources() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "in/b.mp4");
    place.picture("in/a.png", 60, 60);
    place.picture("c.png", 60, 60);
    // In a directory, by a pattern, and by its name.
    for sources in [&["in", "c.png"][..], &["in/*", "c.png"], &["in/a.png", "in/b.mp4", "c.png"]] {
        let run = place.run(&[&["predict", "--vid-stride", "5", "-s"], sources].concat()).expect(0);
        let lines: Vec<_> = run.stdout.lines().collect();
        let starts = [
            "image 1/3 in/a.png: ",
            "video 2/3 (frame 1/12) in/b.mp4: ",
            "video 2/3 (frame 6/12) in/b.mp4: ",
            "video 2/3 (frame 11/12) in/b.mp4: ",
            "image 3/3 c.png: ",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}");
        }
    }
    let run = place.run(&["predict", "--json", "-", "--vid-stride", "5", "-s", "in/b.mp4"]).expect(0);
    let times: Vec<_> =
        run.json_lines().iter().map(|object| object["time_s"].as_f64().expect("a time")).collect();
    assert_eq!(times, [0.0, 0.5, 1.0]);
}

#[test]
fn an_annotated_video_has_the_frames_of_the_video() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    clip(&place, "odd.avi", (161, 99), &["-c:v", "mjpeg", "-pix_fmt", "yuvj444p"]);
    // Two of a name, and a size that H.264 does not know.
    let run = place.run(&["predict", "--save", "out", "-s", "clip.mp4", "odd.avi", "clip.mp4"]).expect(0);
    run.says(&["saved results of 3 source(s) in out"]);
    assert_eq!(place.files("out"), ["clip.mp4", "clip_2.mp4", "odd.mp4"]);
    for (name, size) in [("clip.mp4", "320,240"), ("clip_2.mp4", "320,240"), ("odd.mp4", "162,100")] {
        let path = place.path("out").join(name);
        assert_eq!(probed(&path, "width,height"), size);
        assert_eq!(probed(&path, "avg_frame_rate"), "10/1");
        assert_eq!(probed(&path, "nb_read_frames"), N_FRAMES.to_string());
        assert!(["h264", "mpeg4"].contains(&probed(&path, "codec_name").as_str()));
    }
    let run = place.run(&["predict", "--save", "every3", "--vid-stride", "3", "-s", "clip.mp4"]).expect(0);
    run.says(&["saved every3/clip.mp4"]);
    assert_eq!(probed(&place.path("every3/clip.mp4"), "avg_frame_rate"), "10/3");
    assert_eq!(probed(&place.path("every3/clip.mp4"), "nb_read_frames"), "4");

    // Boxes are drawn: far more changes than by encoding alone.
    place.run(&["predict", "--save", "plain", "--conf", "1", "-s", "clip.mp4"]).expect(0);
    let frame = |video: &str| {
        ffmpeg(&place, &["-i", video, "-frames:v", "1", "frame.png"]);
        image::open(place.path("frame.png")).expect("a frame").to_rgb8()
    };
    let original = frame("clip.mp4");
    let changed = |video: &str| {
        let frame = frame(video);
        let differs =
            |(a, b): &(&image::Rgb<u8>, &image::Rgb<u8>)| (0..3).any(|c| a.0[c].abs_diff(b.0[c]) > 60);
        frame.pixels().zip(original.pixels()).filter(differs).count()
    };
    let (plain, boxes) = (changed("plain/clip.mp4"), changed("out/clip.mp4"));
    assert!(boxes > 200 && boxes > 10 * plain, "{plain} {boxes}");
}

#[test]
fn labels_and_crops_carry_the_number_of_the_frame() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    let args = ["--save-txt", "--save-crop", "--save", "out", "--vid-stride", "6", "--json", "-"];
    let run = place.run(&[&["predict", "-s", "clip.mp4"], &args[..]].concat()).expect(0);
    for object in run.json_lines() {
        let labels = std::fs::read_to_string(place.path(&format!("out/labels/clip_{}.txt", object["frame"])));
        let n_found = object["results"].as_array().expect("an array").len();
        assert!(labels.expect("labels").lines().count() == n_found && n_found > 0);
    }
    let files = place.files("out");
    assert!(
        files.iter().any(|name| name.starts_with("crops/") && name.ends_with("/clip_7.jpg")),
        "{files:?}"
    );
    assert_eq!(files.iter().filter(|name| name.starts_with("labels/")).count(), 2);
}

#[test]
fn a_video_that_breaks_off_gives_what_there_is_and_an_error() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    // Frames of about the same number of bytes.
    let options = ["-c:v", "mpeg4", "-q:v", "2", "-g", "1"];
    clip(&place, "whole.mp4", (320, 240), &[&options[..], &["-movflags", "+faststart"]].concat());
    clip(&place, "whole.mkv", (320, 240), &options);
    for name in ["mp4", "mkv"] {
        let bytes = std::fs::read(place.path(&format!("whole.{name}"))).expect("a video");
        let cut = format!("cut.{name}");
        place.write(&cut, &bytes[..bytes.len() * 2 / 3]);
        let run = place.run(&["predict", "--json", "-", "--save", name, "-s", &cut, "whole.mp4"]).expect(1);
        let objects = run.json_lines();
        let n_cut = objects
            .iter()
            .filter(|object| object["path"] == cut.as_str() && object["results"].is_array())
            .count();
        assert!((3..N_FRAMES).contains(&n_cut), "{n_cut}");
        let error = objects[n_cut]["error"].as_str().expect("an error after the frames");
        assert!(error.contains("breaks off after") && error.contains("of 12"), "{error}");
        assert_eq!(objects.len(), n_cut + 1 + N_FRAMES, "the next source is read");
        assert!(run.stderr.contains(&format!("error: {cut}: breaks off")), "{}", run.stderr);
        let saved = place.path(&format!("{name}/cut.mp4"));
        assert_eq!(probed(&saved, "nb_read_frames"), n_cut.to_string());
    }
}

#[test]
fn a_video_of_a_server_that_breaks_off_is_an_error() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    clip(
        &place,
        "clip.mp4",
        (320, 240),
        &["-c:v", "mpeg4", "-q:v", "2", "-g", "1", "-movflags", "+faststart"],
    );
    let bytes = std::fs::read(place.path("clip.mp4")).expect("a video");
    let server = Server::start(move |_| Reply::CutShort(bytes[..bytes.len() * 2 / 3].to_vec()));
    let url = server.url("clip.mp4");
    let run = place.finish(place.online(&["predict", "-s", &url], "")).expect(1);
    let n_told = run.stdout.lines().count();
    assert!((3..N_FRAMES).contains(&n_told), "{n_told}");
    run.says(&[&format!("error: {url}: breaks off after {n_told} frame(s) of 12: ")]);
}

#[test]
fn frames_that_are_missing_without_damage_are_told() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    clip(&place, "whole.avi", (160, 120), &["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]);
    let bytes = std::fs::read(place.path("whole.avi")).expect("a video");
    // Chunks of an AVI file follow each other in the list of this name, each a name, a length and even bytes.
    let mut end = bytes.windows(4).position(|four| four == b"movi").expect("the list") + 4;
    for _ in 0..7 {
        let length = bytes[end + 4..end + 8].try_into().map(u32::from_le_bytes).expect("four bytes");
        end += 8 + length.next_multiple_of(2) as usize;
    }
    place.write("cut.avi", &bytes[..end]);
    let run = place.run(&["predict", "-s", "cut.avi"]).expect(0);
    assert_eq!(run.stdout.lines().count(), 7);
    assert!(run.stderr.contains("warning: cut.avi: gave 7 of 12 frames"), "{}", run.stderr);
    let run = place.run(&["predict", "--vid-stride", "5", "-s", "cut.avi", "whole.avi"]).expect(0);
    assert_eq!(run.stderr.matches("warning:").count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("warning: cut.avi: gave 2 of 3 frames"), "{}", run.stderr);
}

#[test]
fn what_is_no_video_is_told() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    place.write("text.mp4", b"this is no video");
    place.write("empty.mkv", b"");
    ffmpeg(&place, &["-f", "lavfi", "-i", "sine=duration=0.2", "sound.mov"]);
    ffmpeg(
        &place,
        &["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10", "-frames:v", "0", "-f", "avi", "none.avi"],
    );
    place.picture("a.png", 50, 50);
    std::fs::create_dir(place.path("dir.mp4")).expect("a directory");
    let sources = ["text.mp4", "empty.mkv", "sound.mov", "none.avi", "absent.mp4", "dir.mp4", "a.png"];
    let run =
        place.run(&[&["predict", "--json", "-", "--save", "out", "-s"], &sources[..]].concat()).expect(1);
    let objects = run.json_lines();
    assert_eq!(objects.len(), sources.len());
    for (object, source) in objects.iter().zip(sources) {
        assert_eq!(object["path"], source);
        assert_eq!(object["error"].is_string(), source != "a.png", "{object}");
    }
    run.says(&["sound.mov: holds no video", "text.mp4: ffprobe: ", "absent.mp4: no such file"]);
    assert_eq!(place.files("out"), ["a.png"]);
}

#[test]
fn without_ffmpeg_videos_are_told_and_pictures_go_on() {
    let place = Place::new();
    place.write("clip.mp4", b"whatever");
    place.picture("a.png", 50, 50);
    std::fs::create_dir(place.path("bin")).expect("a directory");
    let mut command = place.command(&["predict", "-s", "clip.mp4", "a.png"]);
    command.env("PATH", place.path("bin"));
    let run = place.finish(command).expect(1);
    let run = run.says(&[
        "clip.mp4: videos, streams and cameras need the program ff",
        "PATH",
        "apt install ffmpeg",
    ]);
    assert!(run.stdout.starts_with("image 2/2 a.png: "), "{}", run.stdout);
}

/// Runs with a program `ffmpeg` before the real one in `PATH`: a script that may pass on to `$REAL`.
#[cfg(unix)]
fn run_with_ffmpeg(place: &Place, script: &str, args: &[&str]) -> crate::support::Run {
    use std::os::unix::fs::PermissionsExt as _;

    let path = std::env::var_os("PATH").expect("a path");
    let real =
        std::env::split_paths(&path).map(|folder| folder.join("ffmpeg")).find(|program| program.is_file());
    let real = real.expect("ffmpeg in PATH");
    let wrapper = place.write("bin/ffmpeg", format!("#!/bin/sh\nREAL={}\n{script}\n", arg(&real)).as_bytes());
    std::fs::set_permissions(wrapper, std::fs::Permissions::from_mode(0o755)).expect("an executable");
    let mut command = place.command(args);
    let folders = std::iter::once(place.path("bin")).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).expect("a path"));
    place.finish(command)
}

#[cfg(unix)]
#[test]
fn an_old_ffmpeg_without_h264_will_do() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    let script =
        "case \"$*\" in -version) echo 'ffmpeg version 4.4.2 Copyright';; *-encoders) echo ' V..... mpeg4';;
        *-fps_mode*) echo 'Unrecognized option' >&2; exit 1;; *) exec $REAL \"$@\";; esac";
    run_with_ffmpeg(&place, script, &["predict", "-s", "clip.mp4", "--save", "out"]).expect(0);
    assert_eq!(probed(&place.path("out/clip.mp4"), "codec_name"), "mpeg4");
    assert_eq!(probed(&place.path("out/clip.mp4"), "nb_read_frames"), N_FRAMES.to_string());
}

#[cfg(unix)]
#[test]
fn an_encoder_that_fails_is_told_once_and_costs_no_result() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    let script =
        "case \"$*\" in *rawvideo*) head -c 100000 >/dev/null; echo 'the disk is full' >&2; exit 1;; esac
        exec $REAL \"$@\"";
    let args = ["predict", "-s", "clip.mp4", "--save", "out", "--save-txt"];
    let run = run_with_ffmpeg(&place, script, &args).expect(1);
    assert_eq!(run.stdout.lines().count(), N_FRAMES);
    assert_eq!(run.stderr.matches("the disk is full").count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("out/clip.mp4: ffmpeg failed"), "{}", run.stderr);
    // Labels of the frame at which it failed come after the video.
    let n_labels = place.files("out").iter().filter(|name| name.starts_with("labels/")).count();
    assert!(n_labels + 1 >= N_FRAMES, "{n_labels}");
    assert!(!place.files("out").iter().any(|name| name.ends_with("mp4") || name.ends_with("part")));
}

#[cfg(unix)]
#[test]
fn an_encoder_that_fails_at_the_end_costs_nothing_of_what_follows() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    for name in ["a.mp4", "b.mp4", "c.mp4", "e.mp4"] {
        mp4(&place, name);
    }
    place.picture("d.png", 50, 50);
    // Every other annotated video fails when all of its frames are there.
    let script = "case \"$*\" in *rawvideo*) if [ -e failed ]; then rm failed; else
        touch failed; cat >/dev/null; echo 'the disk is full' >&2; exit 1; fi;; esac
        exec $REAL \"$@\"";
    let args = ["predict", "--save", "out", "--save-txt", "-s", "a.mp4", "b.mp4", "c.mp4", "d.png"];
    let run = run_with_ffmpeg(&place, script, &args).expect(1);
    assert_eq!(run.stdout.lines().count(), 3 * N_FRAMES + 1);
    for name in ["a", "c"] {
        assert!(run.stderr.contains(&format!("out/{name}.mp4: ffmpeg failed")), "{}", run.stderr);
    }
    assert_eq!(run.stderr.matches("the disk is full").count(), 2, "{}", run.stderr);
    assert!(run.stderr.contains("saved results of 2 source(s) in out"), "{}", run.stderr);
    let files = place.files("out");
    let n_labels = files.iter().filter(|name| name.starts_with("labels/")).count();
    assert_eq!(n_labels, 3 * N_FRAMES + 1);
    assert_eq!(files[..2], ["b.mp4", "d.png"]);
    assert_eq!(files.len(), n_labels + 2, "{files:?}");
    assert_eq!(probed(&place.path("out/b.mp4"), "nb_read_frames"), N_FRAMES.to_string());
    // Alone it counts for nothing.
    std::fs::remove_file(place.path("failed")).expect("an odd number");
    let run = run_with_ffmpeg(&place, script, &["predict", "--save", "none", "-s", "e.mp4"]).expect(1);
    assert!(!run.stderr.contains("saved"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn a_decoder_that_dies_is_told_after_its_frames() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    // Two and a half frames, and much to say.
    let n_bytes = (320 * 240 * 3 + 15) * 5 / 2;
    let script = format!(
        "case \"$*\" in *ppm*) \"$REAL\" \"$@\" | head -c {n_bytes}; yes complaint | head -c 1000000 >&2; echo 'all is lost' >&2
        kill -KILL $$;; esac; exec $REAL \"$@\""
    );
    let run = run_with_ffmpeg(&place, &script, &["predict", "-s", "clip.mp4"]).expect(1);
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    run.says(&["clip.mp4: ffmpeg failed (signal: 9", "after 2 frame(s) of 12", "complaint; all is lost"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_camera_that_is_not_there_is_told() {
    let place = Place::new();
    place.run(&["predict", "-s", "977"]).expect(1).says(&["977: there is no camera 977", "/dev/video977"]);
    // A file of that name is a file.
    let picture = place.picture("a.png", 50, 50);
    std::fs::rename(picture, place.path("977")).expect("renamed");
    place.run(&["predict", "-s", "977"]).expect(0);
}

#[test]
fn a_video_by_url_goes_through_ffmpeg() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    let bytes = std::fs::read(place.path("clip.mp4")).expect("a video");
    let server = Server::start(move |path| match path {
        "clip.mp4?token=1" => Reply::File(bytes.clone()),
        _ => Reply::Status(404),
    });
    let [url, absent] = ["clip.mp4?token=1", "absent.mp4"].map(|path| server.url(path));
    let run = place.finish(place.online(&["predict", "--save", "out", "-s", &url, &absent], "")).expect(1);
    assert_eq!(run.stdout.lines().count(), N_FRAMES);
    assert!(run.stdout.starts_with(&format!("video 1/2 (frame 1/12) {url}: ")), "{}", run.stdout);
    let run = run.says(&[&absent, "404"]);
    assert!(!run.stderr.contains(&format!("{url}: ffmpeg")), "{}", run.stderr);
    assert_eq!(place.files("out"), ["clip.mp4"]);
    // Offline neither is asked for.
    let n_asked = server.asked().len();
    place.run(&["predict", "-s", &url]).expect(1).says(&["not fetched"]);
    assert_eq!(server.asked().len(), n_asked);
}

fn jpeg() -> Vec<u8> {
    let scene = image::load_from_memory(sample()).expect("a picture").to_rgb8();
    let small = image::imageops::thumbnail(&scene, 160, 120);
    let mut bytes = Cursor::new(Vec::new());
    small.write_to(&mut bytes, image::ImageFormat::Jpeg).expect("a JPEG");
    bytes.into_inner()
}

#[test]
fn a_stream_that_falls_silent_is_told() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    // Enough for ffprobe, so that it is the frames that stop.
    let server = Server::start(|_| Reply::Stall(jpeg().repeat(400)));
    let url = server.url("live.mjpg");
    let mut command = place.online(&["predict", "--save", "out", "-s", &url], "");
    command.env("FERROYOLO_TIMEOUT", "5");
    let run = place.finish(command).expect(1);
    let n_told = run.stdout.lines().count();
    assert!(n_told > 0);
    run.says(&[&format!("{url}: no frame for 5"), &format!("after {n_told} frame(s)")]);
    assert_eq!(probed(&place.path("out/live.mp4"), "nb_read_frames"), n_told.to_string());

    // One that is silent from the beginning is ffprobe's to tell.
    let server = Server::start(|_| Reply::Silence);
    let mut command = place.online(&["predict", "-s", &server.url("live.mjpg")], "");
    command.env("FERROYOLO_TIMEOUT", "0.3");
    place.finish(command).expect(1).says(&["live.mjpg: ffprobe: no answer for 0.3 s"]);
}

#[test]
fn what_is_here_has_time() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    let mut command = place.command(&["predict", "--save", "out", "-s", "clip.mp4"]);
    // No program starts and ends as fast.
    command.env("FERROYOLO_TIMEOUT", "0.0001");
    let run = place.finish(command).expect(0);
    assert_eq!(run.stdout.lines().count(), N_FRAMES);
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_a_stream_in_order() {
    use std::io::{BufRead, BufReader};

    use crate::support::{assert_gone, children_of, signal};

    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    let server = Server::start(|_| Reply::Endless(jpeg()));
    let url = server.url("live.mjpg");
    for (policy, workers) in [("shared", "1"), ("process", "2")] {
        let mut command = place.online(&["predict", "--save", policy, "-s", &url], "");
        command.args(["--policy", policy, "--workers", workers]);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for number in 1..=5 {
            let line = lines.next().expect("a line").expect("text");
            assert!(line.starts_with(&format!("video 1/1 (frame {number}")), "{line}");
        }
        let children = children_of(child.id());
        assert!(children.len() >= 2, "one ffmpeg reads, one writes: {children:?}");
        signal("INT", child.id());
        let n_told = 5 + lines.count();
        let output = child.wait_with_output().expect("the binary ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("stopped by a signal") && !stderr.contains("panicked"), "{stderr}");
        assert_gone(&children);
        let saved = place.path(policy).join("live.mp4");
        assert_eq!(probed(&saved, "nb_read_frames"), n_told.to_string());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_nobody_reads_leaves_no_process() {
    use std::io::{BufRead, BufReader};

    use crate::support::{assert_gone, children_of};

    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    let server = Server::start(|_| Reply::Endless(jpeg()));
    let mut command = place.online(&["predict", "--save", "out", "-s", &server.url("live.mjpg")], "");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut String::new()).expect("a line");
    let children = children_of(child.id());
    drop(stdout);
    assert_eq!(child.wait().expect("the binary ends").code(), Some(0));
    assert_gone(&children);
    assert!(probed(&place.path("out/live.mp4"), "nb_read_frames").parse::<usize>().is_ok_and(|n| n > 0));
}

#[test]
fn the_sources_own_directory_is_not_written_to() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "in/clip.mp4");
    let before = std::fs::read(place.path("in/clip.mp4")).expect("the video");
    place.run(&["predict", "-s", "in/clip.mp4", "--save", "in"]).expect(2).says(&["source pictures"]);
    let run = place.run_with_input(&["predict", "-s", "-", "--save", "in"], b"in/clip.mp4\n").expect(1);
    assert_eq!(run.stdout.lines().count(), N_FRAMES);
    assert_eq!(run.stderr.matches("not saved").count(), 1, "{}", run.stderr);
    assert_eq!(std::fs::read(place.path("in/clip.mp4")).expect("the video"), before);
    assert_eq!(place.files("in"), ["clip.mp4"]);
}

#[cfg(unix)]
#[test]
fn a_video_behind_a_link_is_not_overwritten() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "out/clip.mp4");
    let before = std::fs::read(place.path("out/clip.mp4")).expect("the video");
    std::os::unix::fs::symlink(place.path("out/clip.mp4"), place.path("clip.mp4")).expect("a link");
    let run = place.run(&["predict", "-s", "clip.mp4", "--save", "out"]).expect(1);
    assert_eq!(run.stdout.lines().count(), N_FRAMES);
    assert_eq!(
        run.stderr.matches("not saved, out/clip.mp4 is the source itself").count(),
        1,
        "{}",
        run.stderr
    );
    assert_eq!(std::fs::read(place.path("out/clip.mp4")).expect("the video"), before);
    assert_eq!(place.files("out"), ["clip.mp4"]);
}

/// A stream of twelve frames whose size changes after the sixth.
fn changing(place: &Place, name: &str) {
    for (part, size) in [("a.mjpg", (320, 240)), ("b.mjpg", (162, 200))] {
        clip(place, part, size, &["-frames:v", "6", "-c:v", "mjpeg", "-q:v", "2"]);
    }
    let parts = ["a.mjpg", "b.mjpg"].map(|part| std::fs::read(place.path(part)).expect("a video"));
    place.write(name, &parts.concat());
}

#[test]
fn a_size_that_changes_is_that_of_the_first_frame() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    changing(&place, "clip.mjpeg");
    let run =
        place.run(&["predict", "-s", "clip.mjpeg", "--json", "-", "--save", "out", "--save-txt"]).expect(0);
    let frames = run.json_lines();
    assert_eq!(frames.len(), N_FRAMES);
    for (frame, number) in frames.iter().zip(1..) {
        assert_eq!((&frame["frame"], &frame["shape"]), (&number.into(), &serde_json::json!([240, 320])));
    }
    // What is seen after the change is what ffmpeg makes of the second part, pixel by pixel.
    ffmpeg(&place, &["-f", "mjpeg", "-i", "b.mjpg", "-vf", "scale=320:240:flags=bicubic", "b-%d.png"]);
    let own = place.run(&["predict", "-s", "b-1.png", "b-6.png", "--json", "-"]).expect(0).json_lines();
    assert!(found(&frames[6]).1.as_array().is_some_and(|found| !found.is_empty()));
    for (frame, alone) in [(&frames[6], &own[0]), (&frames[11], &own[1])] {
        assert_eq!(found(frame), found(alone));
    }
    assert_eq!(probed(&place.path("out/clip.mp4"), "width,height,nb_read_frames"), "320,240,12");
}

/// Some versions can be told not to scale.
#[cfg(unix)]
#[test]
fn frames_of_another_size_are_predicted_as_they_are_and_end_the_annotated_video() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    changing(&place, "clip.mjpeg");
    let script = "case \"$*\" in *image2pipe*) for part in a.mjpg b.mjpg; do
            $REAL -v error -f mjpeg -i $part -f image2pipe -c:v ppm -pix_fmt rgb24 pipe:1 </dev/null; done;;
        *) exec $REAL \"$@\";; esac";
    let args = ["predict", "-s", "clip.mjpeg", "--json", "-", "--save", "out", "--save-txt"];
    let run = run_with_ffmpeg(&place, script, &args).expect(1);
    let frames = run.json_lines();
    let shapes: Vec<_> = frames.iter().map(|frame| frame["shape"].clone()).collect();
    let expected = [[240, 320]; 6].into_iter().chain([[200, 162]; 6]).map(|shape| serde_json::json!(shape));
    assert_eq!(shapes, expected.collect::<Vec<_>>());
    let told = "out/clip.mp4: ends before frame 7, which is 162x200, unlike the first, which is 320x240";
    assert_eq!(run.stderr.matches(told).count(), 1, "{}", run.stderr);
    assert_eq!(probed(&place.path("out/clip.mp4"), "width,height,nb_read_frames"), "320,240,6");
    // Labels of the frame at which it ended come after the video.
    let n_labels = place.files("out").iter().filter(|name| name.starts_with("labels/")).count();
    assert_eq!(n_labels, N_FRAMES - 1);
}

#[cfg(unix)]
#[test]
fn a_video_that_is_another_source_is_not_overwritten() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "in/clip.mp4");
    place.write("other/kept.mp4", &std::fs::read(place.path("in/clip.mp4")).expect("the video"));
    std::fs::create_dir(place.path("out")).expect("a directory");
    std::os::unix::fs::symlink(place.path("other/kept.mp4"), place.path("out/clip.mp4")).expect("a link");
    let before = std::fs::read(place.path("other/kept.mp4")).expect("the video");
    let run = place.run(&["predict", "-s", "in", "other", "--save", "out"]).expect(1);
    let told = "in/clip.mp4: not saved, out/clip.mp4 is the input other/kept.mp4";
    assert_eq!(run.stderr.matches(told).count(), 1, "{}", run.stderr);
    assert_eq!(std::fs::read(place.path("other/kept.mp4")).expect("the video"), before);
    assert_eq!(place.files("out"), ["clip.mp4", "kept.mp4"]);
}

#[test]
fn names_are_no_options_and_no_protocols() {
    if !has_ffmpeg() {
        return;
    }
    let place = Place::new();
    mp4(&place, "clip.mp4");
    let names: &[&str] = if cfg!(windows) { &["-y.mp4"] } else { &["-y.mp4", "concat:a|b.mp4", "a%02d.mp4"] };
    for name in names {
        std::fs::copy(place.path("clip.mp4"), place.path("").join(name)).expect("copied");
        let source = format!("--source={name}");
        let run = place.run(&["predict", &source, "--save", arg(&place.path("out"))]).expect(0);
        assert_eq!(run.stdout.lines().count(), N_FRAMES);
        assert!(place.path("out").join(name).exists(), "{:?}", place.files("out"));
    }
}
