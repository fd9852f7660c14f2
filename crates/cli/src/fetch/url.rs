//! What a source that looks like a URL is.

use crate::output::unique::beginning;

/// Streams that only ffmpeg reads.
const STREAM_SCHEMES: [&str; 8] = ["rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "srt", "rtp"];

/// A source of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture, to be fetched.
    Picture,
    /// A video or stream for ffmpeg.
    Video,
    /// A scheme that nothing here reads.
    Unknown,
}

/// What `source` is, if it is a URL: a scheme of at least two letters, then `://`.
pub fn kind(source: &str) -> Option<Kind> {
    let (scheme, _) = source.split_once("://")?;
    let is_scheme = scheme.len() > 1
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    Some(match scheme.as_str() {
        "http" | "https" if crate::input::video::is_video_name(&path_of(source)) => Kind::Video,
        "http" | "https" => Kind::Picture,
        scheme if STREAM_SCHEMES.contains(&scheme) => Kind::Video,
        _ => Kind::Unknown,
    })
}

/// The path of a URL, without query and fragment; percent signs are as they were.
pub fn path_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    rest.split_once('/').map(|(_, path)| path.to_owned()).unwrap_or_default()
}

/// `url` without the password in it, to be shown.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    format!("{scheme}://{}{path}", hide_login(authority))
}

/// `text`, which another program wrote, without the passwords of URLs in it; those of `known` are found in any form.
pub fn hide_passwords(text: &str, known: &[String]) -> String {
    let mut text = text.to_owned();
    for url in known {
        text = text.replace(url, &without_password(url));
        let authority = url.split_once("://").map_or(&**url, |(_, rest)| rest).split(['/', '?', '#']).next();
        // A program may tell a part of the URL only.
        if let Some((login, _)) = authority.and_then(|authority| authority.rsplit_once('@')) {
            let login = format!("{login}@");
            text = text.replace(&login, &hide_login(&login));
        }
    }
    let mut hidden = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#');
        let (authority, after) = after.split_at(after.find(ends).unwrap_or(after.len()));
        hidden.push_str(before);
        hidden.push_str(&hide_login(authority));
        rest = after;
    }
    hidden + rest
}

/// The host of a URL with the user before it, if one is named, but without the password.
pub fn hide_login(authority: &str) -> String {
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}:***@{host}", user.split(':').next().unwrap_or_default()),
        None => authority.into(),
    }
}

/// A name for files about `url`: the last part of its path without the extension, or its host.
///
/// Only letters, digits and a few signs are left, so that it is a safe name of a file.
pub fn file_stem(url: &str) -> String {
    let path = path_of(url);
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let name = if stem.is_empty() { host } else { stem };
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = beginning(name).chars().map(safe).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "url".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_told_from_paths() {
        for (source, expected) in [
            ("http://a/b.jpg", Some(Kind::Picture)),
            ("HTTPS://a/b", Some(Kind::Picture)),
            ("https://a/b.mp4?x=1.jpg", Some(Kind::Video)),
            ("https://a/live.m3u8", Some(Kind::Video)),
            ("https://a/b.jpg?from=c.mp4", Some(Kind::Picture)),
            ("rtsp://user:secret@cam/1", Some(Kind::Video)),
            ("ftp://a/b.jpg", Some(Kind::Unknown)),
            ("C://photos/a.jpg", None),
            ("photos//a.jpg", None),
            ("a b://c", None),
            ("", None),
        ] {
            assert_eq!(kind(source), expected, "{source}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("rtsp://me:secret@cam:554/1?x=@", "rtsp://me:***@cam:554/1?x=@"),
            ("rtsp://me:se@cret@cam", "rtsp://me:***@cam"),
            ("https://a/b@c.jpg", "https://a/b@c.jpg"),
            ("a.jpg", "a.jpg"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn passwords_in_foreign_text_are_not_shown() {
        let known = ["rtsp://me:se'cr et@cam:554/1".to_owned()];
        for (text, shown) in [
            ("rtsp://me:se'cr et@cam:554/1: refused", "rtsp://me:***@cam:554/1: refused"),
            ("[rtsp @ 0x5] login me:se'cr et@ failed", "[rtsp @ 0x5] login me:***@ failed"),
            (
                "from 'http://a/b@c' to http://you:other@d/e and tcp://f",
                "from 'http://a/b@c' to http://you:***@d/e and tcp://f",
            ),
            ("nothing://", "nothing://"),
            ("", ""),
        ] {
            assert_eq!(hide_passwords(text, &known), shown);
        }
    }

    #[test]
    fn file_names_are_safe() {
        for (url, stem) in [
            ("https://a/b/bus.jpg", "bus"),
            ("https://a/b/bus.jpg?size=../../x", "bus"),
            ("https://a/b/", "b"),
            ("https://me:secret@host:80", "host_80"),
            ("https://a/..", "url"),
            ("https://a/%2e%2e%2fetc.png", "_2e_2e_2fetc"),
            ("https://a/.hidden.png", "hidden"),
            ("https:///", "url"),
        ] {
            assert_eq!(file_stem(url), stem, "{url}");
        }
        assert_eq!(file_stem(&format!("https://a/{}.png", "車".repeat(100))), "車".repeat(50));
    }
}
