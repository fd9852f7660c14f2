//! A trained network, loaded and ready.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferroyolo_kernels::Isa;
#[cfg(feature = "gpu")]
use ferroyolo_shaders::Element;
use serde::{Deserialize, Serialize};

#[cfg(feature = "gpu")]
use crate::backend::gpu::{Adapter, Gpu, Opening, Tuner, automatically, candidates};
use crate::backend::{Cpu, Device, Precision, Tuning};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::image::{Image, Normalization, Placement};
use crate::modules::{self, Branches, DetectHead, Extra, NetworkHead};
use crate::network::Network;
use crate::results::{Results, Task};
use crate::session::{PredictOptions, Session, SessionState};
use crate::tasks::fit::FitSpec;
#[cfg(feature = "gpu")]
use crate::tensor::Tensor;
use crate::weights;

/// Idle session states that are kept for [`Model::predict`].
const MAX_IDLE: usize = 64;

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// The processor to run on.
    pub device: Device,
    /// The number format to compute in.
    pub precision: Precision,
    /// CPU threads that one run may use; all CPUs if absent.
    pub threads: Option<usize>,
    /// Instruction set of the CPU kernels; the best one if absent.
    pub isa: Option<Isa>,
    /// Whether a GPU's ways to carry out convolutions are measured.
    pub tuning: Tuning,
    /// A folder for what is measured and what drivers have compiled, so that the next process need not do it again;
    /// nothing is kept if absent. It is made if it is not there, any number of processes may use it, and models run as
    /// well if it can't be written to.
    pub cache: Option<PathBuf>,
    /// How long a GPU may leave a run unanswered, with all that other sessions have asked of it before, until it is given
    /// up with an error of the kind `Device`; a minute if absent, ten on programs that stand in for one.
    pub patience: Option<Duration>,
}

/// One set of outputs that a head may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// One-to-many, as current releases of the original software do.
    #[default]
    Auto,
    /// Many boxes per object, thinned out by suppression.
    OneToMany,
    /// One box per object.
    OneToOne,
}

/// A trained network: weights and plans, immutable and shared.
///
/// Cloning is cheap, and all clones may be used from any number of threads. Working memory lives in [`Session`]s.
///
/// ```no_run
/// use ferroyolo::{Image, Model, ModelOptions, PredictOptions};
///
/// let model = Model::open("yolo11n.safetensors", &ModelOptions::default())?;
/// let results = model.predict(&Image::open("bus.jpg")?, &PredictOptions::default())?;
/// println!("{}", results.verbose());
/// # Ok::<(), ferroyolo::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) network: Network,
    pub(crate) names: Arc<[String]>,
    pub(crate) imgsz: [usize; 2],
    pub(crate) fit: FitSpec,
    provenance: BTreeMap<String, String>,
    n_parameters: usize,
    /// Why this is on the CPU, if a GPU was tried first.
    fallback: Option<Error>,
    idle: Mutex<Vec<SessionState>>,
}

impl Model {
    /// Loads the model file at `path`, a safetensors file as `ferroyolo convert` writes it.
    ///
    /// Errors name the file, and the layer or tensor where it does not fit.
    pub fn open(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = weights::read_file(path).map_err(|error| in_file(&name, error))?;
        Self::from_bytes(&name, &bytes, options)
    }

    /// Loads a model from the bytes of a model file; `name` is what errors call it.
    pub fn from_bytes(name: &str, bytes: &[u8], options: &ModelOptions) -> Result<Self> {
        check_options(options)?;
        let load = |options: &ModelOptions, fallback| {
            Self::load(bytes, options, fallback).map_err(|error| in_file(name, error))
        };
        #[cfg(feature = "gpu")]
        if options.device == Device::Auto && options.precision == Precision::F32 {
            let on = |device| ModelOptions { device, ..options.clone() };
            return automatically(
                &candidates(),
                |index| load(&on(Device::Gpu(Some(index))), None).and_then(Self::tried),
                |why| load(&on(Device::Cpu), why),
            );
        }
        load(options, None)
    }

    /// The same model after a run on zeros, for which everything is made that a picture needs.
    #[cfg(feature = "gpu")]
    fn tried(self) -> Result<Self> {
        let [h, w] = self.imgsz();
        self.session().run_head(&Tensor::zeros(vec![1, 3, h, w])?, Head::Auto)?;
        Ok(self)
    }

    fn load(bytes: &[u8], options: &ModelOptions, fallback: Option<Error>) -> Result<Self> {
        let (document, weights) = weights::read(bytes)?;
        let task = Task::by_name(&document.task)
            .ok_or_else(|| Error::unsupported("task", format!("{:?} is no known task", document.task)))?;
        let n_parameters = weights.n_parameters();
        let (graph, head) = modules::build_network(&document, weights)?;
        if head.task() != task {
            return Err(Error::format(
                "task",
                format!("the file says {:?}, but its head is for {:?}", document.task, head.task().as_str()),
            ));
        }
        let cpu = Cpu::new(options.threads, options.isa)?;
        let stride = head.strides().iter().copied().max().unwrap_or(1);
        let text =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let provenance = document.provenance.iter().filter(|(_, value)| !value.is_null());
        let inner = Inner {
            network: place(graph, head, cpu, options)?,
            provenance: provenance.map(|(key, value)| (key.clone(), text(value))).collect(),
            names: document.names.into(),
            imgsz: document.imgsz.map(|side| side.next_multiple_of(stride)),
            fit: FitSpec {
                task,
                placement: match document.input.letterbox {
                    weights::Placement::Center => Placement::Center,
                    weights::Placement::TopLeft => Placement::TopLeft,
                },
                pad_value: document.input.pad_value,
                normalization: Normalization { mean: document.input.mean, std: document.input.std },
                stride,
            },
            n_parameters,
            fallback,
            idle: Mutex::new(Vec::new()),
        };
        let model = Self { inner: Arc::new(inner) };
        // Layers that don't fit together show up here rather than at the first picture.
        let [h, w] = model.inner.imgsz;
        let has_one2one = model.inner.network.head().has_one2one();
        for one2one in [true, false].into_iter().filter(|&one2one| has_one2one || !one2one) {
            model.inner.network.plan(([1, h, w], Branches { one2many: !one2one, one2one }))?;
        }
        Ok(model)
    }

    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// What the network was trained for.
    #[must_use]
    pub fn task(&self) -> Task {
        self.inner.network.head().task()
    }

    /// Class names by index.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.inner.names
    }

    /// Number of classes.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.inner.names.len()
    }

    /// Keypoints of an object and values of each: `[n, 2]` (x, y) or `[n, 3]` (and visibility). Only of networks for
    /// keypoints.
    #[must_use]
    pub fn kpt_shape(&self) -> Option<[usize; 2]> {
        match self.inner.network.head() {
            NetworkHead::Detect(DetectHead { extra: Extra::Keypoints { n, values, .. }, .. }) => {
                Some([*n, *values])
            }
            _ => None,
        }
    }

    /// Pixels of the input per cell, one for each level of the head, finest first.
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        self.inner.network.head().strides()
    }

    /// The coarsest stride: input sides have to be multiples of it.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.strides().iter().copied().max().unwrap_or(1)
    }

    /// The input size that the network was trained for, `[height, width]` in pixels, up to multiples of the stride.
    #[must_use]
    pub fn imgsz(&self) -> [usize; 2] {
        self.inner.imgsz
    }

    /// Where pictures are put in the network's input.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.inner.fit.placement
    }

    /// The 8-bit value around pictures in the network's input.
    #[must_use]
    pub fn pad_value(&self) -> u8 {
        self.inner.fit.pad_value
    }

    /// The heads that the checkpoint holds.
    #[must_use]
    pub fn heads(&self) -> &'static [Head] {
        if self.inner.network.head().has_one2one() {
            &[Head::OneToMany, Head::OneToOne]
        } else {
            &[Head::OneToMany]
        }
    }

    /// The graphics processor that this runs on; none if it runs on the CPU.
    #[cfg(feature = "gpu")]
    #[must_use]
    pub fn adapter(&self) -> Option<&Adapter> {
        self.inner.network.gpu().map(Gpu::adapter)
    }

    /// Why convolutions leave the matrix units of the graphics processor alone; none if they use them, or on the CPU.
    #[cfg(feature = "gpu")]
    #[must_use]
    pub fn matrix_refusal(&self) -> Option<&str> {
        self.inner.network.gpu().and_then(Gpu::matrix_refusal)
    }

    /// The processor that this runs on: never `Device::Auto`, and a GPU with its number.
    #[must_use]
    pub fn device(&self) -> Device {
        #[cfg(feature = "gpu")]
        if let Some(adapter) = self.adapter() {
            return Device::Gpu(Some(adapter.index));
        }
        Device::Cpu
    }

    /// The processor that this runs on, for people: `CPU (avx512)`, or a GPU's number, name and interface.
    #[must_use]
    pub fn device_name(&self) -> String {
        #[cfg(feature = "gpu")]
        if let Some(Adapter { index, name, backend, .. }) = self.adapter() {
            return format!("gpu:{index} {name} ({backend})");
        }
        format!("CPU ({})", self.isa_name())
    }

    /// Why this runs on the CPU, if [`Device::Auto`] was asked for and the GPU that it found did not take the model.
    #[must_use]
    pub fn fallback(&self) -> Option<&Error> {
        self.inner.fallback.as_ref()
    }

    /// CPU threads that one run may use.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.inner.network.cpu().n_threads()
    }

    /// Instruction set of the CPU kernels: `avx512`, `avx2`, `neon` or `scalar`.
    #[must_use]
    pub fn isa_name(&self) -> &'static str {
        self.inner.network.cpu().isa().name()
    }

    /// Bytes of the packed weights, which all sessions share.
    #[must_use]
    pub fn weights_bytes(&self) -> usize {
        self.inner.network.weights_bytes()
    }

    /// Number of values in the tensors of the model file.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        self.inner.n_parameters
    }

    /// Where the weights come from: `file`, `sha256`, `producer`, `version`, `license`, `date`, as far as known.
    #[must_use]
    pub fn provenance(&self) -> &BTreeMap<String, String> {
        &self.inner.provenance
    }

    /// A session: working memory for one thread's runs.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::new(Arc::clone(&self.inner), SessionState::default())
    }

    /// Finds the objects in one picture.
    ///
    /// May be called from any number of threads: each call takes idle working memory, or makes new. A thread that
    /// wants to keep its memory uses a [`Session`].
    pub fn predict(&self, image: &Image, options: &PredictOptions) -> Result<Results> {
        let mut results = self.predict_batch(&[image], options)?;
        results.pop().ok_or_else(|| Error::shape("results", "no result for the picture"))
    }

    /// Finds the objects in several pictures, which go through the network at once; results in the same order.
    ///
    /// As [`Model::predict`], it may be called from any number of threads.
    pub fn predict_batch(&self, images: &[&Image], options: &PredictOptions) -> Result<Vec<Results>> {
        let mut session = Session::new(Arc::clone(&self.inner), self.inner.take_idle());
        let results = session.predict(images, options);
        self.inner.put_idle(session.into_state());
        results
    }
}

impl Inner {
    fn take_idle(&self) -> SessionState {
        // A panic can't happen while the list is locked, so a poisoned lock does no harm.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put_idle(&self, state: SessionState) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(state);
        }
    }
}

/// The same error, with the file it comes from before its place.
fn in_file(name: &str, error: Error) -> Error {
    let at = if error.at().is_empty() { name.to_owned() } else { format!("{name}: {}", error.at()) };
    error.with_at(at)
}

/// The network on the processor that the options ask for.
fn place(graph: Graph, head: NetworkHead, cpu: Cpu, options: &ModelOptions) -> Result<Network> {
    #[cfg(feature = "gpu")]
    if let Some(gpu) = open(options)? {
        let tuner = tuner(&gpu, options);
        return Ok(Network::on_gpu(graph, head, cpu, gpu)?.with_tuner(tuner));
    }
    #[cfg(not(feature = "gpu"))]
    if matches!(options.device, Device::Gpu(_)) {
        return Err(Error::device("gpu", "this build has no GPU backend; use the CPU"));
    }
    Ok(Network::new(graph, head, cpu))
}

/// The GPU that the options ask for. What is not chosen yet is the first one in half precision, which the CPU does not
/// have, and otherwise none.
#[cfg(feature = "gpu")]
fn open(options: &ModelOptions) -> Result<Option<Gpu>> {
    let opening =
        Opening { cache: options.cache.as_deref(), patience: options.patience, ..Opening::default() };
    let open = |index, element| Gpu::open(index, element, &opening).map(Some);
    match (options.device, options.precision) {
        (Device::Gpu(index), Precision::F16) => open(index, Element::F16),
        (Device::Gpu(index), _) => open(index, Element::F32),
        (Device::Auto, Precision::F16) => open(None, Element::F16).map_err(|why| {
            let message = "f16 is for GPUs, the CPU computes in f32";
            Error::unsupported("precision", message).with_source(why)
        }),
        _ => Ok(None),
    }
}

/// What measures `gpu`, if the options ask for it.
#[cfg(feature = "gpu")]
fn tuner(gpu: &Gpu, options: &ModelOptions) -> Option<Tuner> {
    let is_wanted = match options.tuning {
        Tuning::Auto => !gpu.adapter().is_software,
        Tuning::Off => false,
        Tuning::Always => true,
    };
    is_wanted.then(|| Tuner::new(gpu, options.cache.as_deref()))
}

fn check_options(options: &ModelOptions) -> Result<()> {
    let may_be_gpu = match options.device {
        Device::Gpu(_) => true,
        Device::Auto => cfg!(feature = "gpu"),
        Device::Cpu => false,
    };
    match options.precision {
        Precision::F32 => Ok(()),
        Precision::F16 if may_be_gpu => Ok(()),
        Precision::F16 => Err(Error::unsupported("precision", "f16 is for GPUs, the CPU computes in f32")),
        Precision::Bf16 | Precision::Int8 => {
            let name = format!("{:?}", options.precision).to_lowercase();
            let message = format!("{name} is not supported, expected f32, or f16 on a GPU");
            Err(Error::unsupported("precision", message))
        }
    }
}
