//! Published models, by their names.

use super::url;

/// A published model.
#[derive(Debug, PartialEq, Eq)]
pub struct WellKnown {
    /// The name without an extension.
    pub stem: String,
    /// The file as published.
    pub file: String,
    /// Who publishes it.
    pub publisher: &'static Publisher,
}

/// Who publishes models.
#[derive(Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Name of the publisher.
    pub name: &'static str,
    /// Where the files lie.
    pub base_url: &'static str,
    /// The licence of the weights.
    pub license: &'static str,
}

/// Where Ultralytics publishes the checkpoints of all of its families.
static ULTRALYTICS: Publisher = Publisher {
    name: "Ultralytics",
    base_url: "https://github.com/ultralytics/assets/releases/download/v8.4.0",
    license: "AGPL-3.0",
};

/// Where Megvii publishes YOLOX.
static MEGVII: Publisher = Publisher {
    name: "Megvii",
    base_url: "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0",
    license: "Apache-2.0",
};

/// The variable with another place for the files, such as a mirror.
const BASE_URL: &str = "FERROYOLO_ASSETS_URL";

/// Names of published networks, their sizes, and the variants in all sizes.
const FAMILIES: [(&str, &str, &[&str]); 6] = [
    ("yolov8", "nsmlx", &["-seg", "-pose", "-obb", "-cls", "-oiv7"]),
    ("yolov9", "tsmce", &[]),
    ("yolov10", "nsmblx", &[]),
    ("yolo11", "nsmlx", &["-seg", "-pose", "-obb", "-cls"]),
    ("yolo12", "nsmlx", &[]),
    ("yolo26", "nsmlx", &["-seg", "-pose", "-obb", "-cls", "-sem", "-depth"]),
];

/// Networks outside of [`FAMILIES`].
const SINGLES: [&str; 6] =
    ["yolov3u", "yolov3-tinyu", "yolov3-sppu", "yolov9c-seg", "yolov9e-seg", "yolov8x-pose-p6"];

/// SHA-256 of published files. A file that was published in several versions has several.
const PINNED: [(&str, &str); 4] = [
    ("yolov8n.pt", "303b7abb70606512f5daa04a01b921183670e9132829d08dca4c73c5e5784e30"),
    ("yolov8n.pt", "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36"),
    ("yolo11n.pt", "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1"),
    ("yolo26n.pt", "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef"),
];

impl WellKnown {
    /// The model called `name`, with or without an extension.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = ["pt", "pth", "safetensors"]
            .iter()
            .find_map(|extension| name.strip_suffix(extension)?.strip_suffix('.'))
            .unwrap_or(name);
        let (extension, publisher) = if is_yolox(stem) {
            ("pth", &MEGVII)
        } else if is_of_ultralytics(stem) {
            ("pt", &ULTRALYTICS)
        } else {
            return None;
        };
        Some(Self { stem: stem.into(), file: format!("{stem}.{extension}"), publisher })
    }

    /// Where the file is to be had: below `$FERROYOLO_ASSETS_URL` if that is set, else from its publisher.
    pub fn url(&self) -> String {
        let mirror = std::env::var(BASE_URL).ok().filter(|base| !base.is_empty());
        let base = mirror.as_deref().unwrap_or(self.publisher.base_url);
        format!("{}/{}", base.trim_end_matches('/'), self.file)
    }

    /// [`WellKnown::url`] without the password in it, to be shown.
    pub fn shown_url(&self) -> String {
        let url = self.url();
        // A mirror that was set without a scheme is no URL, but may hold a password all the same.
        if url.contains("://") { url::without_password(&url) } else { url::hide_login(&url) }
    }

    /// What the file's SHA-256 may be, in lower case; nothing if that is not known.
    pub fn pinned(&self) -> Vec<&'static str> {
        PINNED.iter().filter(|(file, _)| *file == self.file).map(|&(_, hash)| hash).collect()
    }
}

fn is_yolox(stem: &str) -> bool {
    matches!(stem.strip_prefix("yolox_"), Some("nano" | "tiny" | "s" | "m" | "l" | "x"))
}

fn is_of_ultralytics(stem: &str) -> bool {
    let in_family = FAMILIES.iter().any(|(family, sizes, variants)| {
        stem.strip_prefix(family).is_some_and(|rest| {
            let mut rest = rest.chars();
            let size = rest.next().is_some_and(|size| sizes.contains(size));
            size && (rest.as_str().is_empty() || variants.contains(&rest.as_str()))
        })
    });
    let is_yolov5 = stem.strip_prefix("yolov5").and_then(|rest| rest.strip_suffix('u')).is_some_and(|rest| {
        let size = rest.strip_suffix('6').unwrap_or(rest);
        matches!(size, "n" | "s" | "m" | "l" | "x")
    });
    in_family || is_yolov5 || SINGLES.contains(&stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_are_known() {
        for name in [
            "yolo11n",
            "yolo11n.pt",
            "yolov8x-seg",
            "yolov8s-oiv7",
            "yolov9c",
            "yolov9e-seg.pt",
            "yolov10b",
            "yolo26s-pose",
            "yolo26n-sem",
            "yolo26x-depth.pt",
            "yolov5n6u",
            "yolov3-tinyu",
            "yolox_nano",
            "yolox_l.pth",
        ] {
            let known = WellKnown::parse(name).unwrap_or_else(|| panic!("{name}"));
            assert!(name.starts_with(&known.stem));
            assert!(known.publisher.base_url.starts_with("https://"));
        }
        for name in [
            "",
            "yolo",
            "yolo11",
            "yolo11z",
            "yolo11nn",
            "yolo11n-sem",
            "yolov9t-seg",
            "yolov5n",
            "models/yolo11n.pt",
            "yolox_huge",
            "bus.jpg",
        ] {
            assert_eq!(WellKnown::parse(name), None, "{name}");
        }
    }

    #[test]
    fn pinned_hashes_are_hashes_of_known_files() {
        for (file, hash) in PINNED {
            let known = WellKnown::parse(file).unwrap_or_else(|| panic!("{file}"));
            assert!(known.pinned().contains(&hash));
            assert!(hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        }
        assert!(WellKnown::parse("yolov3u").expect("a known name").pinned().is_empty());
    }
}
