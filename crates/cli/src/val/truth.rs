//! What a data set says of its pictures, for the task of a model.

use std::path::PathBuf;

use ferroyolo::{Model, Task};
use ferroyolo_val::dataset::{ClassFolders, ClassMap, Dataset, LabelKind, Labels, label_path, mask_path};

use super::args::Val;
use crate::error::{Error, Result};
use crate::output::console;

/// The pictures of a data set, and where the truth about each is had.
pub struct Truths {
    /// The pictures, in a fixed order.
    pub pictures: Vec<PathBuf>,
    /// Names of the data set's classes.
    pub names: Vec<String>,
    source: Source,
}

enum Source {
    /// Text files beside the pictures.
    Labels(LabelKind),
    /// PNG files beside the pictures, in a folder of this name.
    Maps(Option<String>),
    /// The model's class of each picture.
    Classes(Vec<usize>),
}

/// What is true of a picture.
pub enum Truth {
    /// The objects in it.
    Objects(Labels),
    /// The class of each pixel, and the file that says so.
    Map(PathBuf, ClassMap),
    /// The class of the picture.
    Class(usize),
}

impl Truths {
    /// Looks the data set up, and sees that it fits the model.
    pub fn open(args: &Val, model: &Model) -> Result<Self> {
        let split = args.split.as_str();
        let task = model.task();
        if task == Task::Classify {
            return Self::from_folders(args, model);
        }
        let dataset = Dataset::open(&args.data, split).map_err(|error| Error::at(&args.data, error))?;
        check_classes(args, model, &dataset.names)?;
        let source = match task {
            Task::Detect => Source::Labels(LabelKind::Box),
            Task::Segment => Source::Labels(LabelKind::Polygon),
            Task::Obb => Source::Labels(LabelKind::Oriented),
            Task::Semantic => Source::Maps(dataset.masks_dir),
            Task::Pose => {
                let shape = dataset.kpt_shape.ok_or_else(|| {
                    Error::failed(format!(
                        "{}: has no kpt_shape, which a pose model needs",
                        args.data.display()
                    ))
                })?;
                check_keypoints(args, model, shape)?;
                Source::Labels(LabelKind::Keypoints { n: shape[0], dims: shape[1] })
            }
            _ => {
                return Err(Error::failed(format!(
                    "val: there are no metrics for models of the task {task}"
                )));
            }
        };
        Ok(Self { pictures: dataset.pictures, names: dataset.names, source })
    }

    fn from_folders(args: &Val, model: &Model) -> Result<Self> {
        let found = ClassFolders::open(&args.data, args.split.as_str())
            .map_err(|error| Error::at(&args.data, error))?;
        let by_name: Option<Vec<usize>> =
            found.names.iter().map(|name| model.names().iter().position(|known| known == name)).collect();
        // Folders are often called by a code and not by the name of their class; then their order has to do.
        let classes = match by_name {
            Some(classes) => classes,
            None if found.names.len() == model.n_classes() => (0..model.n_classes()).collect(),
            None => {
                let unknown = found.names.iter().find(|name| !model.names().contains(name));
                return Err(Error::failed(format!(
                    "{}: has {} class folders and the model {} classes; {:?} is none of them",
                    args.data.display(),
                    found.names.len(),
                    model.n_classes(),
                    unknown.map_or("", String::as_str)
                )));
            }
        };
        let (pictures, classes) =
            found.pictures.into_iter().map(|(path, folder)| (path, classes[folder])).unzip();
        Ok(Self { pictures, names: model.names().to_vec(), source: Source::Classes(classes) })
    }

    /// The files that say what is true, beside the pictures; some of them may be missing.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.pictures.iter().filter_map(|picture| match &self.source {
            Source::Labels(_) => Some(label_path(picture)),
            Source::Maps(folder) => Some(mask_path(picture, folder.as_deref())),
            Source::Classes(_) => None,
        })
    }

    /// The truth about a picture, given by index.
    pub fn of(&self, idx: usize) -> Result<Truth> {
        let picture = &self.pictures[idx];
        let truth = match &self.source {
            Source::Labels(kind) => {
                Labels::read(&label_path(picture), *kind, self.names.len()).map(Truth::Objects)
            }
            Source::Maps(folder) => {
                let path = mask_path(picture, folder.as_deref());
                ClassMap::read(&path, self.names.len()).map(|map| Truth::Map(path, map))
            }
            Source::Classes(classes) => Ok(Truth::Class(classes[idx])),
        };
        truth.map_err(|error| Error::at(picture, error))
    }
}

/// A model whose classes are others can't be measured; other names for them are worth a word.
fn check_classes(args: &Val, model: &Model, names: &[String]) -> Result<()> {
    let data = args.data.display();
    if names.len() != model.n_classes() {
        let (got, expected) = (names.len(), model.n_classes());
        return Err(Error::failed(format!("{data}: has {got} classes, but the model has {expected}")));
    }
    let differs = names.iter().zip(model.names()).enumerate().find(|(_, (name, known))| name != known);
    if let Some((idx, (name, known))) = differs
        && !args.quiet
    {
        console::warning(&format!("{data}: class {idx} is called {name:?}, the model calls it {known:?}"));
    }
    Ok(())
}

fn check_keypoints(args: &Val, model: &Model, [n, _]: [usize; 2]) -> Result<()> {
    match model.kpt_shape() {
        Some([of_model, _]) if of_model != n => Err(Error::failed(format!(
            "{}: has {n} keypoints an object, but the model has {of_model}",
            args.data.display()
        ))),
        _ => Ok(()),
    }
}
