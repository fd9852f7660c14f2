//! An open device and what was compiled for it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferroyolo_shaders::{Element, Lanes, Reduce, Shader, Third};

use super::adapter::{Adapter, choose};
use super::matrix::{self, MatrixUnits};
use super::pipelines::Pipelines;
use super::verdict::Verdict;
use super::{known_answer, reduce, trust};
use crate::error::{Error, Result};
use crate::memo::Memo;

/// A device that has not answered for so long is given up. A program that stands in for one may have to share the CPU.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_WITH_PROGRAMS: Duration = Duration::from_secs(600);

/// How a device is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening<'a> {
    /// A folder for what is found out about the device and what is compiled for it.
    pub cache: Option<&'a Path>,
    /// How long the device may leave a run unanswered, in place of a minute, or ten on a program.
    pub patience: Option<Duration>,
    /// Limits of one's own, in place of all that the adapter can do.
    pub limits: Option<wgpu::Limits>,
}

/// A compiled shader is the same for the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PipelineKey {
    pub shader: Shader,
    pub lanes: Lanes,
    pub overrides: Vec<(&'static str, u32)>,
}

/// What went wrong outside a call, to be told by the next one.
type Fault = Arc<Mutex<Option<String>>>;

/// An open device. Any number of threads may use it.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    adapter: Adapter,
    element: Element,
    /// In the order of [`Third::ALL`].
    layouts: [wgpu::BindGroupLayout; Third::ALL.len()],
    pipelines: Memo<PipelineKey, Arc<wgpu::ComputePipeline>>,
    /// Buffers, bind groups and pipelines so far.
    n_made: AtomicUsize,
    /// Submissions that were begun and that the device has got, so far.
    n_submitted: [AtomicUsize; 2],
    kept: Option<Pipelines>,
    patience: Duration,
    fault: Fault,
    /// What is used of its matrix units, or why nothing is.
    matrix: std::result::Result<MatrixUnits, String>,
    /// How shaders put together what the invocations of a workgroup have.
    reduce: Reduce,
}

impl Gpu {
    /// As [`Gpu::open`], with limits of one's own in place of all that the adapter can do.
    #[cfg(test)]
    pub(super) fn open_within(
        index: Option<usize>,
        element: Element,
        limits: Option<wgpu::Limits>,
    ) -> Result<Self> {
        Self::open(index, element, &Opening { limits, ..Opening::default() })
    }

    /// Opens the adapter of this index, or the first that is a graphics processor.
    pub(crate) fn open(index: Option<usize>, element: Element, opening: &Opening<'_>) -> Result<Self> {
        let (adapter, handle) = choose(index)?;
        let wanted =
            wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE | wgpu::Features::SUBGROUP;
        let optional = handle.features() & wanted;
        let features = match element {
            Element::F32 => optional,
            Element::F16 if adapter.has_f16 => optional | wgpu::Features::SHADER_F16,
            Element::F16 => {
                let message = format!("{} does not compute with 16-bit floats", adapter.name);
                return Err(Error::unsupported("precision", message));
            }
        };
        let request = |features| {
            let gpu = Self::request(&adapter, &handle, element, features, opening)?;
            Ok(gpu.keep_pipelines(opening.cache))
        };
        let tried = matrix::find(&handle, element).and_then(|units| {
            let open = || request(features | matrix::FEATURES).map(|gpu| Self { matrix: Ok(units), ..gpu });
            let check = |gpu: &Self| {
                known_answer::check(gpu)?;
                gpu.save_pipelines();
                Ok(())
            };
            Verdict::new(&handle.get_info(), units, element, opening.cache).apply(open, check)
        });
        match tried {
            Ok(gpu) => Ok(gpu),
            Err(refusal) => request(features).map(|gpu| Self { matrix: Err(refusal), ..gpu }),
        }
    }

    fn request(
        adapter: &Adapter,
        handle: &wgpu::Adapter,
        element: Element,
        features: wgpu::Features,
        opening: &Opening<'_>,
    ) -> Result<Self> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ferroyolo"),
            required_features: features,
            // Sizes are checked against them when a program is made.
            required_limits: opening.limits.clone().unwrap_or_else(|| handle.limits()),
            experimental_features: trust::experimental_features(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(handle.request_device(&descriptor)).map_err(|cause| {
            Error::device("gpu", format!("{} could not be opened", adapter.name)).with_source(cause)
        })?;
        let fault = watch(&device);
        let layouts = Third::ALL.map(|third| bind_group_layout(&device, third));
        let matrix = Err("they were not looked for".to_owned());
        Ok(Self {
            device,
            queue,
            adapter: adapter.clone(),
            element,
            layouts,
            pipelines: Memo::new(usize::MAX),
            n_made: AtomicUsize::new(0),
            n_submitted: [const { AtomicUsize::new(0) }; 2],
            kept: None,
            patience: opening.patience.unwrap_or_else(|| usual_patience(adapter)),
            fault,
            matrix,
            reduce: reduce::choose(adapter.subgroup_sizes),
        })
    }

    /// What convolutions use of the device's matrix units, if anything.
    pub(crate) fn matrix_units(&self) -> Option<MatrixUnits> {
        self.matrix.as_ref().ok().copied()
    }

    /// Why matrix units are not used, if they are not.
    pub(crate) fn matrix_refusal(&self) -> Option<&str> {
        self.matrix.as_ref().err().map(String::as_str)
    }

    /// As if the device had such matrix units.
    #[cfg(test)]
    pub(super) fn with_units(self, units: MatrixUnits) -> Self {
        Self { matrix: Ok(units), ..self }
    }

    /// With another way to put together what invocations have. None if the adapter does not know it.
    #[cfg(test)]
    pub(crate) fn reducing(self, by: Reduce) -> Option<Self> {
        let has_it = by == Reduce::Barriers || self.device.features().contains(wgpu::Features::SUBGROUP);
        has_it.then_some(Self { reduce: by, ..self })
    }

    /// How shaders put together what invocations have.
    #[cfg(test)]
    pub(crate) fn reduction(&self) -> Reduce {
        self.reduce
    }

    pub(crate) fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// How long the device may leave a run unanswered.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether the device gets the time that it gets if nobody asks for less.
    pub(super) fn is_patient(&self) -> bool {
        self.patience >= usual_patience(&self.adapter)
    }

    /// Hands work to the device.
    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        let [begun, done] = &self.n_submitted;
        begun.fetch_add(1, Ordering::SeqCst);
        let submission = self.queue.submit([encoder.finish()]);
        done.fetch_add(1, Ordering::SeqCst);
        submission
    }

    /// How many submissions the device has got so far; none while one is on its way there.
    pub(super) fn n_submitted(&self) -> Option<usize> {
        let [begun, done] = &self.n_submitted;
        let n_done = done.load(Ordering::SeqCst);
        (begun.load(Ordering::SeqCst) == n_done).then_some(n_done)
    }

    /// Bytes that a shader reaches in one buffer. Some drivers tell shaders the sizes of buffers in 32 bits.
    pub(super) fn max_binding_bytes(&self) -> u64 {
        self.device.limits().max_storage_buffer_binding_size.min(u64::from(u32::MAX))
    }

    /// The number format of activations and weights.
    pub(super) fn element(&self) -> Element {
        self.element
    }

    /// Words that a buffer may have if a shader is to reach all of it.
    pub(crate) fn max_words(&self) -> usize {
        let bytes = self.max_binding_bytes().min(self.device.limits().max_buffer_size);
        usize::try_from(bytes / 4).unwrap_or(usize::MAX)
    }

    /// Bytes of an activation or weight.
    pub(super) fn element_bytes(&self) -> u64 {
        match self.element {
            Element::F32 => 4,
            Element::F16 => 2,
        }
    }

    /// Values as the device holds them.
    pub(super) fn encode(&self, values: &[f32]) -> Vec<u8> {
        match self.element {
            Element::F32 => bytemuck::cast_slice(values).to_vec(),
            Element::F16 => {
                let halves: Vec<half::f16> = values.iter().map(|&value| half::f16::from_f32(value)).collect();
                bytemuck::cast_slice(&halves).to_vec()
            }
        }
    }

    /// The inverse of [`Gpu::encode`]. Panics if the lengths differ.
    pub(super) fn decode(&self, bytes: &[u8], values: &mut [f32]) {
        match self.element {
            Element::F32 => values.copy_from_slice(bytemuck::cast_slice(bytes)),
            Element::F16 => {
                let halves: &[half::f16] = bytemuck::cast_slice(bytes);
                assert_eq!(halves.len(), values.len());
                values.iter_mut().zip(halves).for_each(|(value, half)| *value = half.to_f32());
            }
        }
    }

    /// Values as they come back from the device.
    #[cfg(test)]
    pub(crate) fn rounded(&self, values: &[f32]) -> Vec<f32> {
        let mut rounded = values.to_vec();
        self.decode(&self.encode(values), &mut rounded);
        rounded
    }

    /// Errors with `ErrorKind::Weights` if a value would become infinite on the device.
    pub(crate) fn check_values(&self, values: &[f32]) -> Result<()> {
        match self.first_too_large(values) {
            Some(value) => {
                let message = format!("holds {value:e}, which is too large for 16-bit floats; use f32");
                Err(Error::weights("weights", message))
            }
            None => Ok(()),
        }
    }

    /// The buffer with all weights of a network.
    pub(crate) fn weights_buffer(&self, values: &[f32]) -> Result<wgpu::Buffer> {
        self.buffer_with("weights", &self.encode(values), wgpu::BufferUsages::STORAGE)
    }

    /// A buffer with `bytes` in it, of at least one vector.
    pub(super) fn buffer_with(
        &self,
        label: &str,
        bytes: &[u8],
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let buffer = self.buffer(label, bytes.len() as u64, usage | wgpu::BufferUsages::COPY_DST)?;
        self.guarded(|| self.queue.write_buffer(&buffer, 0, bytes))?;
        Ok(buffer)
    }

    /// A buffer of `bytes` bytes, of at least one vector. Errors if the device has no memory for it.
    pub(super) fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        self.create(label, bytes, usage, false)
    }

    /// As [`Gpu::buffer`], ready to be written by the host.
    pub(super) fn mapped_buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        self.create(label, bytes, usage, true)
    }

    fn create(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped_at_creation: bool,
    ) -> Result<wgpu::Buffer> {
        self.count();
        let limit = self.device.limits().max_buffer_size;
        if bytes > limit {
            let message =
                format!("{bytes} bytes for {label} are needed, {} has at most {limit}", self.adapter.name);
            return Err(Error::limit("gpu", message));
        }
        self.guarded(|| {
            let size = bytes.max(16).next_multiple_of(16);
            let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation };
            self.device.create_buffer(&descriptor)
        })
    }

    /// The pipeline of a key, compiled at the first call.
    pub(super) fn pipeline(&self, key: &PipelineKey) -> Result<Arc<wgpu::ComputePipeline>> {
        self.pipelines.get(key, || self.guarded(|| self.compile(key)).map(Arc::new))
    }

    /// Notes that a buffer, a bind group or a pipeline is made.
    pub(super) fn count(&self) {
        self.n_made.fetch_add(1, Ordering::Relaxed);
    }

    /// Buffers, bind groups and pipelines so far.
    #[cfg(test)]
    pub(crate) fn n_made(&self) -> usize {
        self.n_made.load(Ordering::Relaxed)
    }

    fn compile(&self, key: &PipelineKey) -> wgpu::ComputePipeline {
        self.count();
        let PipelineKey { shader, lanes, overrides } = key;
        let shader = &shader.reducing(self.reduce);
        let module = trust::module(&self.device, shader, self.element, *lanes);
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(shader.name),
            bind_group_layouts: &[Some(self.layout(shader))],
            ..Default::default()
        });
        let constants: Vec<(&str, f64)> =
            overrides.iter().map(|&(name, value)| (name, f64::from(value))).collect();
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(shader.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every shader writes what it reads of its workgroup memory.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.kept.as_ref().map(Pipelines::for_compiling),
        })
    }

    /// Takes over what `folder` keeps of pipelines that were compiled before, and writes there what
    /// [`Gpu::save_pipelines`] finds new. Without a folder, and on devices that give no pipelines, nothing is kept.
    pub(crate) fn keep_pipelines(mut self, folder: Option<&Path>) -> Self {
        let open = |folder| self.guarded(|| Pipelines::open(&self.device, folder)).ok().flatten();
        self.kept = folder.and_then(open);
        self
    }

    /// Keeps what has been compiled for the next process.
    pub(crate) fn save_pipelines(&self) {
        if let Some(kept) = &self.kept {
            // What can't be kept is compiled again.
            let _ = self.guarded(|| kept.save());
        }
    }

    /// The buffers that a shader takes.
    pub(super) fn layout(&self, shader: &Shader) -> &wgpu::BindGroupLayout {
        &self.layouts[shader.third as usize]
    }

    /// Does something with the device, and turns what it complains of into an error.
    pub(super) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        let scopes =
            [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal]
                .map(|filter| self.device.push_error_scope(filter));
        let done = work();
        // Scopes are a stack: the last one goes first.
        let mut complaint = None;
        for scope in scopes.into_iter().rev() {
            complaint = pollster::block_on(scope.pop()).or(complaint);
        }
        match complaint {
            // A lost device says so by its callback only.
            None => self.check().map(|()| done),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                Err(Error::limit("gpu", format!("{} is out of memory", self.adapter.name)))
            }
            Some(other) => {
                Err(Error::device("gpu", format!("{} refuses", self.adapter.name)).with_source(other))
            }
        }
    }

    /// Errors if the device is gone or has complained outside a call.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(message) => Err(Error::device("gpu", format!("{}: {message}", self.adapter.name))),
            None => Ok(()),
        }
    }

    /// Makes the device unusable, as one that was pulled out.
    #[cfg(test)]
    pub(crate) fn destroy(&self) {
        self.device.destroy();
    }
}

fn usual_patience(adapter: &Adapter) -> Duration {
    if adapter.is_software { PATIENCE_WITH_PROGRAMS } else { PATIENCE }
}

/// Notes what the device says of itself; the first word is kept.
fn watch(device: &wgpu::Device) -> Fault {
    let fault = Fault::default();
    let note = |fault: &Fault, message: String| {
        fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
    };
    let lost = Arc::clone(&fault);
    device.set_device_lost_callback(move |reason, message| {
        note(&lost, format!("the device was lost ({reason:?}): {message}"));
    });
    let complained = Arc::clone(&fault);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&complained, error.to_string())));
    fault
}

fn bind_group_layout(device: &wgpu::Device, third: Third) -> wgpu::BindGroupLayout {
    let entry = |binding, is_written: bool| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: !is_written },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let mut entries = vec![entry(0, false), entry(1, true)];
    entries.extend(third.name().map(|_| entry(2, third.is_written())));
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}
