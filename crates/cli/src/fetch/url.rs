//! What a source that looks like a URL is.

use std::net::Ipv4Addr;

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
///
/// Passwords are often written as they are, with characters that end the part of a URL that they belong to. So the login
/// goes on to the last `@` that can be its end, and too much is hidden rather than too little. But a host and a port of
/// its own, as in `http://host:8080/a@2x.png`, are no login, unless the `@` stands before what can only be a host.
pub fn without_password(url: &str) -> String {
    hide_logins(url, |_| false)
}

/// `text` without the passwords of the URLs in it, which go on to a character that `ends` them.
fn hide_logins(text: &str, ends: impl Fn(char) -> bool) -> String {
    let mut hidden = String::new();
    for part in text.split_inclusive(&ends) {
        let word = part.trim_end_matches(&ends);
        // What has no `@` any more is not looked through for each `://` in it.
        let last = word.rfind('@').unwrap_or(0);
        let mut rest = word;
        while word.len() - rest.len() < last
            && let Some((before, after)) = rest.split_once("://")
        {
            let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            hidden.push_str(before);
            hidden.push_str("://");
            rest = after;
            if let Some(end) = login_end(scheme, after) {
                hidden.push_str(&shown_login(&after[..end]));
                rest = &after[end..];
            }
        }
        hidden.push_str(rest);
        hidden.push_str(&part[word.len()..]);
    }
    hidden
}

/// Where the login ends with which `rest`, a URL after its scheme, begins: at an `@`.
fn login_end(scheme: &str, rest: &str) -> Option<usize> {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let ends = || rest.match_indices('@').map(|(at, _)| at);
    let is_before_host =
        |&at: &usize| rest[at + 1..].starts_with(|c: char| c.is_alphanumeric() || matches!(c, '[' | '_'));
    let end = ends().rfind(is_before_host).or_else(|| ends().next_back())?;
    if authority.contains('@') {
        return Some(end);
    }
    // Paths of pictures have an `@` more often than those of streams have.
    let is_picture = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if is_server(authority, is_picture) && !is_surely_host(&rest[end + 1..]) {
        return None;
    }
    let before_password = if is_picture { authority } else { &rest[..end] };
    // A host in brackets has colons, and the name of a user none.
    (before_password.contains(':') && !rest.starts_with('[')).then_some(end)
}

/// Whether `authority` is rather a host and its port than a user and the beginning of a password.
fn is_server(authority: &str, is_picture: bool) -> bool {
    let Some((host, port)) = authority.split_once(':') else { return false };
    // Of the ports below 1024, which are given out, these have to do with pictures.
    let is_port = is_digits(port) && matches!(port.parse(), Ok(80 | 443 | 554 | 1024..=u16::MAX));
    is_port
        && !host.is_empty()
        && (is_picture || host.contains('.') || host.eq_ignore_ascii_case("localhost"))
}

/// Whether `rest` of a URL begins with an address or a host with a port, which paths have not.
fn is_surely_host(rest: &str) -> bool {
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    rest.starts_with('[') || is_digits(port) || host.parse::<Ipv4Addr>().is_ok()
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is shown of the login in a URL, of what stands before the `@`: the user, if a password follows.
fn shown_login(login: &str) -> String {
    match login.find([':', '@']) {
        Some(at) if login[at..].starts_with(':') => format!("{}:***", &login[..at]),
        // A name alone may be a token.
        _ => "***".into(),
    }
}

/// `text`, which another program wrote, without the passwords of URLs in it; those of `known` are found in any form.
pub fn hide_passwords(text: &str, known: &[String]) -> String {
    match known.split_first() {
        Some((url, others)) => {
            // The URL as it is shown has no password, and may have a user of the same name.
            let parts = text.split(&**url).map(|part| hide_passwords(&hide_parts(part, url), others));
            parts.collect::<Vec<_>>().join(&without_password(url))
        }
        None => hide_logins(text, char::is_whitespace),
    }
}

/// `text` without what a program may tell of the login in `url`: all of it, or parts, since what ends it is open to dispute.
fn hide_parts(text: &str, url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return text.into() };
    let Some(end) = login_end(scheme, rest) else { return text.into() };
    let login = &rest[..end];
    let mut text = text.replace(&format!("{login}@"), &format!("{}@", shown_login(login)));
    let secret = login.split_once(':').map_or(login, |(_, password)| password);
    let decoded = percent_decoded(secret);
    for secret in [secret, &decoded] {
        let parts = secret.split(['/', '?', '#', '@', ':']);
        // One character tells nothing, and is found everywhere.
        for part in [secret].into_iter().chain(parts).filter(|part| part.chars().nth(1).is_some()) {
            text = replace_words(&text, part, "***");
        }
    }
    text
}

/// `text` with `by` in place of `word` wherever that stands alone.
fn replace_words(text: &str, word: &str, by: &str) -> String {
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        replaced.push_str(before);
        let joins = |a: Option<char>, b: Option<char>| {
            a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric)
        };
        let is_part = joins(replaced.chars().next_back(), word.chars().next())
            || joins(word.chars().next_back(), after.chars().next());
        replaced.push_str(if is_part { word } else { by });
        rest = after;
    }
    replaced + rest
}

/// `text` with the bytes that `%` and two digits stand for.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(coded.unwrap_or(byte));
        rest = if coded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An address without a scheme, and without the password in it, to be shown.
pub fn hide_login(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((login, host)) => format!("{}@{host}", shown_login(login)),
        None => address.into(),
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
            ("http://me:secret@a/b@2x.jpg", "http://me:***@2x.jpg"),
            ("https://a/b:c@2x.jpg", "https://a/b:c@2x.jpg"),
            ("rtsp://cam:554/live", "rtsp://cam:554/live"),
            ("rtsp://[::1]:554/live@1", "rtsp://[::1]:554/live@1"),
            ("rtsp://me:secret@[::1]:554/live", "rtsp://me:***@[::1]:554/live"),
            ("https://token@a/b.jpg", "https://***@a/b.jpg"),
            ("rtsp://:secret@cam", "rtsp://:***@cam"),
            ("rtsp://office/me:secret@cam/1", "rtsp://office/me:***@cam/1"),
            ("https://a/?from=rtsp://me:secret@cam", "https://a/?from=rtsp://me:***@cam"),
            ("://@", "://***@"),
            (
                "https://a/?from=rtsp://me:secret@cam&to=http://b/",
                "https://a/?from=rtsp://me:***@cam&to=http://b/",
            ),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn ports_are_no_passwords() {
        for url in [
            "http://host:8080/a@2x.png",
            "http://127.0.0.1:8000/icons/a@2x.png?v=@3",
            "https://cdn:443/npm/pkg@1.2.3/a.png",
            "http://localhost:5173/@fs/icons/a.png",
            "rtsp://10.0.0.2:554/live@1",
            "rtsp://cam.local:8554/live@main/1",
            "RTSP://LOCALHOST:554/live@1",
        ] {
            assert_eq!(without_password(url), url);
            let text = format!("{url}: no answer from {url}, port 8080");
            assert_eq!(hide_passwords(&text, &[]), text);
            assert_eq!(hide_passwords(&text, &[url.into()]), text);
        }
        for (url, shown) in [
            // No port of servers of pictures, or none at all.
            ("http://me:12/34@cam/1", "http://me:***@cam/1"),
            ("http://me:99999/x@cam/1", "http://me:***@cam/1"),
            ("http://me:+8080/x@cam/1", "http://me:***@cam/1"),
            ("http://me:80:80/x@cam/1", "http://me:***@cam/1"),
            // What follows is a host and nothing else.
            ("http://me:1234/x@10.0.0.2/1", "http://me:***@10.0.0.2/1"),
            ("http://me:1234/x@cam:554/1", "http://me:***@cam:554/1"),
            ("http://me:1234/x@[::1]/1", "http://me:***@[::1]/1"),
            // Streams have logins more often than an `@` in their paths.
            ("rtsp://me:1234/x@cam/1", "rtsp://me:***@cam/1"),
            ("http://me:8080@host/a.png", "http://me:***@host/a.png"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    /// The longest line of a list would take a minute if all of it were looked through for each of these.
    #[test]
    fn many_schemes_in_a_row_take_no_time() {
        let long = "a://".repeat(400_000);
        for text in [long.clone(), format!("{long} a@b"), format!("a@b {long}")] {
            assert_eq!(hide_passwords(&text, &[]), text);
        }
        let long = "http://a/".repeat(200_000);
        assert_eq!(without_password(&format!("{long}a@b")), format!("{long}a@b"));
    }

    #[test]
    fn passwords_as_they_are_typed_are_not_shown() {
        for scheme in ["rtsp", "http", "HTTPS", "srt"] {
            for secret in
                ["x9/w7z", "/w7z", "w7z/", "x9?w7z", "x9#w7z", "x9@w7z", "x9:w7z", "12/34@x/y", "a b/@"]
            {
                for rest in ["cam", "cam:554/live", "cam/live?x=@", "[::1]/live", "kamera-\u{fc}/1"] {
                    let url = format!("{scheme}://me:{secret}@{rest}");
                    assert_eq!(without_password(&url), format!("{scheme}://me:***@{rest}"));
                    // ffmpeg takes the host to end where the authority does.
                    let text =
                        format!("{url}: refused; resolving me:{secret}; tcp://me:{secret} and {secret}");
                    let hidden = hide_passwords(&text, &[url]);
                    let parts = secret.split(['/', '?', '#', '@', ':']).filter(|part| part.len() > 1);
                    for part in parts.chain([secret]) {
                        assert!(!hidden.contains(part), "{part}: {hidden}");
                    }
                    assert!(hidden.contains("refused") && hidden.contains(rest), "{hidden}");
                }
            }
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
            ("moved to http://me:o/ther@d/e", "moved to http://me:***@d/e"),
            ("no such user: se'cr et, but incrset", "no such user: ***, but incrset"),
        ] {
            assert_eq!(hide_passwords(text, &known), shown);
        }
        // Some programs tell what the percent signs stand for.
        let known = ["rtsp://me:se%2Fcr%zzet@cam/1".to_owned()];
        assert_eq!(hide_passwords("401 for se/cr%zzet", &known), "401 for ***");
        // A user is no secret, even if the password is the same word.
        let known = ["rtsp://admin:admin@cam/1".to_owned()];
        assert_eq!(hide_passwords("rtsp://admin:admin@cam/1: 401", &known), "rtsp://admin:***@cam/1: 401");
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
