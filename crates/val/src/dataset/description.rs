//! The YAML file of a data set.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::files;
use crate::error::{Error, Result};

/// Classes that a data set may have.
pub const MAX_CLASSES: usize = 100_000;

/// Bytes that the YAML file may have.
const MAX_YAML_BYTES: u64 = 16 << 20;

/// Values that one keypoint may have, and keypoints of an object.
const KEYPOINT_DIMS: [usize; 2] = [2, 3];
const MAX_KEYPOINTS: usize = 10_000;

/// One split of a labelled data set: names of the classes, and the pictures.
///
/// Relative paths in the YAML file are looked up from its `path`, and that from the folder of the YAML file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dataset {
    /// The YAML file.
    pub yaml: PathBuf,
    /// Names of the classes by index.
    pub names: Vec<String>,
    /// Keypoints of an object, and values of a keypoint (2: x and y; 3: and visibility), if the file says so.
    pub kpt_shape: Option<[usize; 2]>,
    /// The pictures, sorted, each once.
    pub pictures: Vec<PathBuf>,
    /// Where the class maps of a semantic data set lie, from the folder that holds `images`.
    pub masks_dir: Option<String>,
}

impl Dataset {
    /// Reads the YAML file and looks up the pictures of `split`: `train`, `val` or `test`.
    ///
    /// Errors with `ErrorKind::Io` if the file or what it names can't be read, and with `ErrorKind::Dataset` if it is
    /// no YAML, if classes are missing or numbered with gaps, or if the split is absent or has no pictures.
    pub fn open(yaml: &Path, split: &str) -> Result<Self> {
        let raw = Raw::read(yaml)?;
        let names = raw.class_names(yaml)?;
        let kpt_shape = raw.keypoints(yaml)?;
        let here = yaml.parent().unwrap_or(Path::new(""));
        let root = here.join(raw.path.as_deref().unwrap_or(""));
        let places = match split {
            "train" => &raw.train,
            "val" => &raw.val,
            "test" => &raw.test,
            _ => {
                return Err(Error::dataset(
                    yaml,
                    format!("got split {split:?}, expected train, val or test"),
                ));
            }
        };
        let Places(places) = places.as_ref().ok_or_else(|| {
            let known = [("train", &raw.train), ("val", &raw.val), ("test", &raw.test)];
            let known: Vec<_> =
                known.iter().filter(|(_, places)| places.is_some()).map(|(name, _)| *name).collect();
            Error::dataset(yaml, format!("has no split {split:?}, it has [{}]", known.join(", ")))
        })?;
        let mut pictures = Vec::new();
        for place in places {
            files::find(&root, place, &mut pictures)
                .map_err(|error| Error::dataset(yaml, format!("{split}: {place:?}")).with_source(error))?;
        }
        pictures.sort();
        pictures.dedup();
        if pictures.is_empty() {
            let message = format!("{split}: no pictures in {places:?} below {}", root.display());
            return Err(Error::dataset(yaml, message));
        }
        Ok(Self { yaml: yaml.to_owned(), names, kpt_shape, pictures, masks_dir: raw.masks_dir })
    }
}

/// What the file says, as far as it matters here. Other keys are for training.
#[derive(Debug, Deserialize)]
struct Raw {
    path: Option<String>,
    train: Option<Places>,
    #[serde(alias = "validation")]
    val: Option<Places>,
    test: Option<Places>,
    names: Option<Names>,
    nc: Option<usize>,
    kpt_shape: Option<Vec<usize>>,
    masks_dir: Option<String>,
}

impl Raw {
    fn read(yaml: &Path) -> Result<Self> {
        let meta = fs::metadata(yaml).map_err(|error| Error::io(yaml, error))?;
        if !meta.is_file() {
            let got = if meta.is_dir() { "is a folder" } else { "is not a regular file" };
            return Err(Error::dataset(yaml, format!("{got}, expected a YAML file")));
        }
        if meta.len() > MAX_YAML_BYTES {
            return Err(Error::dataset(yaml, format!("has {} bytes, at most {MAX_YAML_BYTES}", meta.len())));
        }
        let text = fs::read_to_string(yaml).map_err(|error| Error::io(yaml, error))?;
        serde_saphyr::from_str(&text).map_err(|error| {
            // The reader shows the place with its lines; one line is enough for an error.
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            Error::dataset(yaml, format!("is no description of a data set: {first}"))
        })
    }

    fn class_names(&self, yaml: &Path) -> Result<Vec<String>> {
        let names = match (&self.names, self.nc) {
            (Some(Names(names)), _) => names.clone(),
            (None, Some(nc)) if nc <= MAX_CLASSES => (0..nc).map(|idx| idx.to_string()).collect(),
            (None, Some(nc)) => {
                return Err(Error::dataset(yaml, format!("nc is {nc}, at most {MAX_CLASSES}")));
            }
            (None, None) => {
                return Err(Error::dataset(yaml, "names no classes: neither `names` nor `nc` is there"));
            }
        };
        if names.is_empty() || names.len() > MAX_CLASSES {
            return Err(Error::dataset(
                yaml,
                format!("got {} classes, expected 1 to {MAX_CLASSES}", names.len()),
            ));
        }
        if let Some(nc) = self.nc
            && nc != names.len()
        {
            return Err(Error::dataset(yaml, format!("nc is {nc}, but there are {} names", names.len())));
        }
        Ok(names)
    }

    fn keypoints(&self, yaml: &Path) -> Result<Option<[usize; 2]>> {
        let Some(shape) = &self.kpt_shape else { return Ok(None) };
        match shape[..] {
            [n, dims] if (1..=MAX_KEYPOINTS).contains(&n) && KEYPOINT_DIMS.contains(&dims) => {
                Ok(Some([n, dims]))
            }
            _ => Err(Error::dataset(
                yaml,
                format!("kpt_shape is {shape:?}, expected [keypoints, 2] or [keypoints, 3]"),
            )),
        }
    }
}

/// One place or a list of them, as written.
#[derive(Debug)]
struct Places(Vec<String>);

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Places;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E>(self, place: &str) -> std::result::Result<Places, E> {
                Ok(Places(vec![place.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Places, A::Error> {
                let mut places = Vec::new();
                while let Some(place) = items.next_element()? {
                    places.push(place);
                }
                Ok(Places(places))
            }

            fn visit_unit<E>(self) -> std::result::Result<Places, E> {
                Ok(Places(Vec::new()))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// Class names by index, from a list or a map of all indices from 0.
#[derive(Debug)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names as a list, or as a map from index to name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> std::result::Result<Names, A::Error> {
                let mut by_idx = BTreeMap::new();
                while let Some((idx, name)) = items.next_entry::<usize, String>()? {
                    if by_idx.insert(idx, name).is_some() {
                        return Err(serde::de::Error::custom(format!("class {idx} is named twice")));
                    }
                }
                let gap = by_idx.keys().enumerate().find(|(expected, idx)| expected != *idx);
                if let Some((expected, idx)) = gap {
                    let message = format!("class {expected} has no name, the next one is {idx}");
                    return Err(serde::de::Error::custom(message));
                }
                Ok(Names(by_idx.into_values().collect()))
            }
        }
        deserializer.deserialize_any(ListOrMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// A folder with two pictures in `images`, and what `text` makes of it.
    fn open(text: &str, split: &str) -> (tempfile::TempDir, Result<Dataset>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("images/deep")).unwrap();
        for name in ["images/b.jpg", "images/deep/a.PNG", "images/notes.txt"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::write(dir.path().join("list.txt"), "./images/b.jpg\n\n# none\nimages/deep/a.PNG\r\n").unwrap();
        let yaml = dir.path().join("data.yaml");
        fs::write(&yaml, text).unwrap();
        let opened = Dataset::open(&yaml, split);
        (dir, opened)
    }

    #[track_caller]
    fn check(text: &str, names: &[&str], n_pictures: usize) {
        let (_dir, dataset) = open(text, "val");
        let dataset = dataset.unwrap();
        assert_eq!(dataset.names, names);
        assert_eq!(dataset.pictures.len(), n_pictures, "{:?}", dataset.pictures);
    }

    #[track_caller]
    fn check_error(text: &str, part: &str) {
        let (_dir, dataset) = open(text, "val");
        let error = dataset.unwrap_err();
        let mut told = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            told = format!("{told}: {cause}");
        }
        assert!(told.contains("data.yaml") && told.contains(part), "{told}");
        assert_eq!(error.kind(), ErrorKind::Dataset);
    }

    #[test]
    fn forms_of_the_file() {
        check("val: images\nnames: [cat, 'dog']\n", &["cat", "dog"], 2);
        check("path: .\nval: images\nnames:\n  0: cat\n  1: dog\nnc: 2\nlr0: 0.1\n", &["cat", "dog"], 2);
        check("path: images\nval: [b.jpg, deep]\nnames: {1: dog, 0: cat}\n", &["cat", "dog"], 2);
        check("validation: list.txt\nnames: [7, true, no]\n", &["7", "true", "no"], 2);
        check("val: [images, list.txt, images/deep]\nnc: 3\n", &["0", "1", "2"], 2);
        check("val: images/deep\nnames: [a]\ntest:\n", &["a"], 1);
    }

    #[test]
    fn keypoints_are_checked() {
        let (_dir, dataset) = open("val: images\nnames: [a]\nkpt_shape: [17, 3]\n", "val");
        assert_eq!(dataset.unwrap().kpt_shape, Some([17, 3]));
        for bad in ["[17, 4]", "[0, 3]", "[17]", "[1, 2, 3]", "[10000000, 2]"] {
            check_error(&format!("val: images\nnames: [a]\nkpt_shape: {bad}\n"), "kpt_shape is");
        }
        check_error("val: images\nnames: [a]\nkpt_shape: x\n", "no description");
    }

    #[test]
    fn what_is_wrong_is_told() {
        check_error("val: images\n", "names no classes");
        check_error("val: images\nnames: []\n", "got 0 classes");
        check_error("val: images\nnames: {0: a, 2: b}\n", "class 1 has no name");
        check_error("val: images\nnames: [a]\nnc: 2\n", "nc is 2");
        check_error("val: images\nnc: 99999999999\n", "at most");
        check_error("train: images\nnames: [a]\n", "has no split \"val\", it has [train]");
        check_error("val: absent\nnames: [a]\n", "no such file");
        check_error("val: data.yaml\nnames: [a]\n", "neither a folder");
        check_error("val: images/notes.txt\nnames: [a]\n", "no pictures");
        check_error("val:\nnames: [a]\n", "has no split");
        check_error("val: [images\nnames: {", "no description");
        check_error("- 1\n- 2\n", "no description");
        check_error("", "names no classes");
        check_error("\u{0}\u{1}", "no description");
        let (_dir, dataset) = open("val: images\nnames: [a]\n", "other");
        assert!(dataset.unwrap_err().to_string().contains("expected train, val or test"));
    }

    /// Each anchor ten times the one before: a file of a few hundred bytes that would fill any memory.
    #[test]
    fn aliases_do_not_multiply() {
        let mut text = String::from("val: images\na0: &a0 [x]\n");
        for level in 1..12 {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{before}]\n");
        }
        text += "names: *a11\n";
        check_error(&text, "no description");
    }

    #[test]
    fn missing_files_are_named() {
        let error = Dataset::open(Path::new("absent/data.yaml"), "val").unwrap_err();
        assert_eq!(error.to_string(), "absent/data.yaml: no such file or directory");
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
