//! One run after the other on a device: buffers and bind groups, made once, and the way there and back.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use ferroyolo_shaders::Third;

use super::device::Gpu;
use super::overflow::{self, Note};
use super::picture::{self, Picture};
use super::program::{Dispatch, Program, grid};
use crate::error::{Error, Result};

/// The stage of a program that computes the network.
pub(super) const NETWORK: usize = 1;

/// Bytes of the outputs that the host keeps room for where objects are found on the device. Further ones, and masks, come
/// in pieces.
const MAX_SPARE: u64 = 4 << 20;

/// What the host reads through.
pub(super) const READBACK: wgpu::BufferUsages =
    wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

/// What is mapped begins at multiples of so many bytes.
const NOTE_ALIGNMENT: u64 = wgpu::MAP_ALIGNMENT;

/// Bytes between the parts of what is sent.
const ALIGNMENT: u64 = 16;

/// What a network sees.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    /// An arena on the host, in which a fitted picture lies where the plan wants it.
    Values(&'a [f32]),
    /// Pictures of a batch, which the device scales.
    Pictures(&'a [Picture<'a>]),
}

/// What is brought back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// The maps that a head decodes, [`Program::outputs`].
    Values,
    /// What is found by the shaders behind the network, with these parameters.
    Found(&'a [u32]),
}

/// Work on the outputs of a finished run, of a kind that its program has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Errand {
    /// What the device is told.
    pub words: Vec<u32>,
    pub n_workgroups: usize,
    /// Words that the device writes behind what it is told.
    pub n_results: usize,
}

/// Bytes that went to the device and came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the device.
    pub uploaded: u64,
    /// From the device.
    pub read_back: u64,
}

/// Everything on the device for runs of one program, one at a time. Several frames run one behind the other: while one
/// computes, the next one is filled and the last one read.
#[derive(Debug)]
pub(crate) struct Frame {
    program: Arc<Program>,
    weights: wgpu::Buffer,
    arena: wgpu::Buffer,
    /// Written by the host; mapped unless a run is on its way.
    upload: wgpu::Buffer,
    picture: wgpu::Buffer,
    found: wgpu::Buffer,
    /// Read by the host.
    readback: wgpu::Buffer,
    /// What errands are about; made when it is needed.
    errand: Option<(wgpu::Buffer, wgpu::BindGroup)>,
    /// For the program's stages.
    groups: [Vec<wgpu::BindGroup>; 3],
    /// Which stages the last run had.
    ran: [bool; 3],
    /// Byte of `readback` at which the arena's note stands after the last run.
    noted_at: u64,
    /// What the last run sent to `found`.
    parameters: Vec<u32>,
    running: Option<Running>,
    traffic: Traffic,
}

/// A run on its way.
#[derive(Debug)]
struct Running {
    submission: wgpu::SubmissionIndex,
    /// Of `readback` and `upload`. Receivers are not `Sync`, and sessions are.
    mapped: Mutex<[mpsc::Receiver<Mapped>; 2]>,
}

pub(super) type Mapped = std::result::Result<(), wgpu::BufferAsyncError>;

impl Frame {
    /// `weights` is the buffer with all weights of the network. The buffers of `last`, which may have run another
    /// program, are used again where they are large enough.
    pub(crate) fn new(
        gpu: &Gpu,
        program: Arc<Program>,
        weights: &wgpu::Buffer,
        last: Option<Self>,
    ) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let [mut arena, mut upload, mut picture, mut found, mut readback] = [const { None }; 5];
        if let Some(last) = last.filter(|last| last.running.is_none()) {
            [arena, upload, picture, found, readback] =
                [last.arena, last.upload, last.picture, last.found, last.readback].map(Some);
        }
        let fit = |old: Option<wgpu::Buffer>, label, bytes, usage| match old {
            Some(old) if old.size() >= bytes => Ok(old),
            _ => gpu.buffer(label, bytes, usage),
        };
        let bytes = |n: usize| n as u64 * gpu.element_bytes();
        let inside = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let read = values_bytes(gpu, &program);
        let read = if program.found.n_read > 0 {
            // All outputs of a large batch would take much memory of the host, and are hardly ever wanted.
            read.min(MAX_SPARE).max(4 * program.found.n_read as u64)
        } else {
            read
        };
        let read = read.next_multiple_of(NOTE_ALIGNMENT) + gpu.note_bytes();
        let arena = fit(arena, "activations", bytes(program.arena_len) + gpu.note_bytes(), inside)?;
        let picture = fit(picture, "pictures", 0, Usage::STORAGE | Usage::COPY_DST)?;
        let found = fit(found, "found", 4 * program.found.len as u64, inside)?;
        let readback = fit(readback, "outputs", read, READBACK)?;
        let upload = upload.map_or_else(|| upload_buffer(gpu, 0), Ok)?;
        let mut frame = Self {
            program,
            weights: weights.clone(),
            arena,
            upload,
            picture,
            found,
            readback,
            errand: None,
            groups: Default::default(),
            ran: [false; 3],
            noted_at: 0,
            parameters: Vec::new(),
            running: None,
            traffic: Traffic::default(),
        };
        frame.groups = gpu.guarded(|| frame.program.stages().map(|stage| frame.bind(gpu, stage)))?;
        Ok(frame)
    }

    /// The dispatches of the last run, and what they are bound to.
    pub(super) fn last_run(&self) -> impl Iterator<Item = (&Dispatch, &wgpu::BindGroup)> {
        let stages = self.program.stages().into_iter().zip(&self.groups).zip(self.ran);
        stages.filter(|(_, ran)| *ran).flat_map(|((stage, groups), _)| stage.iter().zip(groups))
    }

    /// What the last run sent for the shaders that look for objects, and the buffer that begins with it. They count there.
    pub(super) fn parameters(&self) -> (&[u32], &wgpu::Buffer) {
        (&self.parameters, &self.found)
    }

    /// Of each dispatch of the last run the name of its shader, and the steps of the plan that it carries out.
    pub(crate) fn carried_out(&self) -> Vec<(&'static str, Vec<usize>)> {
        self.program.described(self.ran)
    }

    /// Whether this was made for `program`.
    pub(crate) fn is_for(&self, program: &Arc<Program>) -> bool {
        Arc::ptr_eq(&self.program, program)
    }

    /// Bytes of the arena.
    pub(crate) fn arena_bytes(&self) -> u64 {
        self.arena.size()
    }

    /// What the last run sent and read.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    fn bind(&self, gpu: &Gpu, stage: &[Dispatch]) -> Vec<wgpu::BindGroup> {
        stage.iter().map(|dispatch| self.bind_one(gpu, dispatch, &self.found)).collect()
    }

    fn bind_one(&self, gpu: &Gpu, dispatch: &Dispatch, found: &wgpu::Buffer) -> wgpu::BindGroup {
        let part = |buffer, range: &Range<u64>| {
            let size = wgpu::BufferSize::new(range.end - range.start);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: range.start, size })
        };
        let shader = &dispatch.key.shader;
        let third = match shader.third {
            Third::None => None,
            Third::Weights => Some(part(&self.weights, &dispatch.weights)),
            Third::Picture => Some(self.picture.as_entire_binding()),
            Third::Found => Some(found.as_entire_binding()),
        };
        let first = [part(&self.program.jobs, &dispatch.jobs), self.arena.as_entire_binding()];
        let entries: Vec<_> = (0..)
            .zip(first.into_iter().chain(third))
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        gpu.count();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(shader.name),
            layout: gpu.layout(shader),
            entries: &entries,
        })
    }

    /// Makes room for so many bytes of pictures, and for so many in all that are sent.
    fn grow(&mut self, gpu: &Gpu, pictures: u64, all: u64) -> Result<()> {
        if self.picture.size() < pictures {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
            self.picture = gpu.buffer("pictures", pictures, usage)?;
            let stage = gpu.guarded(|| self.bind(gpu, self.program.stages()[0]))?;
            self.groups[0] = stage;
        }
        if self.upload.size() < all {
            self.upload = upload_buffer(gpu, all)?;
        }
        Ok(())
    }

    /// Starts a run, which [`Frame::finish`] waits for. A frame whose run failed can't be used again.
    pub(crate) fn start(&mut self, gpu: &Gpu, input: Input<'_>, wanted: Wanted<'_>) -> Result<()> {
        debug_assert!(self.running.is_none(), "a frame has one run at a time");
        let sent = match input {
            Input::Values(_) => self.program.input.len() as u64 * gpu.element_bytes(),
            Input::Pictures(pictures) => picture::bytes(pictures).map_or(u64::MAX, |bytes| bytes as u64),
        };
        let parameters: &[u32] = match wanted {
            Wanted::Values => &[],
            Wanted::Found(parameters) => parameters,
        };
        let values = values_bytes(gpu, &self.program).next_multiple_of(NOTE_ALIGNMENT) + gpu.note_bytes();
        if matches!(wanted, Wanted::Values) && self.readback.size() < values {
            self.readback = gpu.buffer("outputs", values, READBACK)?;
        }
        let parameters_at = sent.checked_next_multiple_of(ALIGNMENT).ok_or_else(|| too_large(gpu))?;
        let parameters_bytes = 4 * parameters.len() as u64;
        let is_pictures = matches!(input, Input::Pictures(_));
        self.grow(gpu, if is_pictures { sent } else { 0 }, parameters_at + parameters_bytes)?;
        self.fill(gpu, input, parameters_at, parameters)?;
        self.parameters.clear();
        self.parameters.extend_from_slice(parameters);

        self.ran = [is_pictures, true, matches!(wanted, Wanted::Found(_))];
        let program = &self.program;
        let bytes = |n: usize| n as u64 * gpu.element_bytes();
        let note = Note::of(gpu, &self.arena);
        let (mut read_back, mut noted_at) = (0, 0);
        let submission = gpu.guarded(|| {
            self.upload.unmap();
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let (to, place) = match input {
                Input::Values(_) => (&self.arena, bytes(program.input.range.start)),
                Input::Pictures(_) => (&self.picture, 0),
            };
            encoder.copy_buffer_to_buffer(&self.upload, 0, to, place, sent);
            if parameters_bytes > 0 {
                let (from, to) = (&self.upload, &self.found);
                encoder.copy_buffer_to_buffer(from, parameters_at, to, 0, parameters_bytes);
            }
            note.clear(&mut encoder);
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                self.last_run().for_each(|(dispatch, group)| dispatch.encode(&mut pass, group));
            }
            match wanted {
                Wanted::Values => {
                    for range in &program.outputs {
                        let len = bytes(range.len());
                        let from = bytes(range.start);
                        encoder.copy_buffer_to_buffer(&self.arena, from, &self.readback, read_back, len);
                        read_back += len;
                    }
                }
                Wanted::Found(_) => {
                    read_back = 4 * program.found.n_read as u64;
                    encoder.copy_buffer_to_buffer(&self.found, 0, &self.readback, 0, read_back);
                }
            }
            noted_at = read_back.next_multiple_of(NOTE_ALIGNMENT);
            note.copy(&mut encoder, &self.readback, noted_at);
            gpu.submit(encoder)
        })?;
        let mapped = gpu.guarded(|| {
            [(&self.readback, wgpu::MapMode::Read), (&self.upload, wgpu::MapMode::Write)].map(map)
        })?;
        self.running = Some(Running { submission, mapped: Mutex::new(mapped) });
        self.noted_at = noted_at;
        let read_back = read_back + gpu.note_bytes();
        self.traffic = Traffic { uploaded: parameters_at + parameters_bytes, read_back };
        Ok(())
    }

    /// Appends the dispatches of one of the program's stages to a pass.
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>, stage: usize) {
        let dispatches = self.program.stages()[stage].iter().zip(&self.groups[stage]);
        dispatches.for_each(|(dispatch, group)| dispatch.encode(pass, group));
    }

    /// Writes what is sent into the mapped buffer.
    fn fill(&self, gpu: &Gpu, input: Input<'_>, parameters_at: u64, parameters: &[u32]) -> Result<()> {
        let mut view = self.upload.get_mapped_range_mut(..).map_err(|cause| {
            Error::device("gpu", format!("{} can't be written to", gpu.adapter().name)).with_source(cause)
        })?;
        let mut put =
            |place: usize, bytes: &[u8]| view.slice(place..place + bytes.len()).copy_from_slice(bytes);
        match input {
            Input::Values(host) => {
                let values = self.program.input.values(host);
                if let Some(value) = gpu.first_too_large(&values) {
                    let message = format!("holds {value:e}, which is too large for 16-bit floats; use f32");
                    return Err(Error::overflow("images", message));
                }
                put(0, &gpu.encode(&values));
            }
            Input::Pictures(pictures) => picture::write(pictures, &mut put),
        }
        put(parameters_at as usize, bytemuck::cast_slice(parameters));
        Ok(())
    }

    /// Takes the picture in an arena on the host through the network, and brings the outputs back to their places there.
    pub(crate) fn run(&mut self, gpu: &Gpu, host: &mut [f32]) -> Result<()> {
        self.start(gpu, Input::Values(host), Wanted::Values)?;
        self.finish(gpu)?;
        self.read_values(gpu, host)
    }

    /// The arena's note.
    pub(super) fn note(&self, gpu: &Gpu) -> Note<'_> {
        Note::of(gpu, &self.arena)
    }

    /// Has what the last run was sent taken once more, of a frame that sends nothing else any more. Pictures are still
    /// there.
    pub(super) fn send_again(&self, gpu: &Gpu, encoder: &mut wgpu::CommandEncoder) {
        if !self.ran[0] {
            self.upload.unmap();
            let input = &self.program.input;
            let [place, bytes] = [input.range.start, input.len()].map(|n| n as u64 * gpu.element_bytes());
            encoder.copy_buffer_to_buffer(&self.upload, 0, &self.arena, place, bytes);
        }
    }

    /// Waits until the run is through.
    ///
    /// Errors with `ErrorKind::Overflow` if a value was too large for the numbers of the device;
    /// [`first_overflow`](super::first_overflow) finds out where.
    pub(crate) fn finish(&mut self, gpu: &Gpu) -> Result<()> {
        match self.running.take() {
            Some(Running { submission, mapped }) => {
                let mapped = mapped.into_inner().unwrap_or_else(PoisonError::into_inner);
                wait(gpu, submission, &mapped)?;
            }
            None => return Err(Error::device("gpu", "there is no run to wait for")),
        }
        if overflow::is_noted(gpu, &self.readback, self.noted_at)? {
            self.readback.unmap();
            return Err(overflow::overflow("gpu", &[], 1));
        }
        Ok(())
    }

    /// Writes the outputs of a finished run that wanted [`Wanted::Values`] to their places in an arena on the host.
    pub(crate) fn read_values(&self, gpu: &Gpu, host: &mut [f32]) -> Result<()> {
        self.read(gpu, |view| {
            let mut place = 0;
            for range in &self.program.outputs {
                let len = range.len() * gpu.element_bytes() as usize;
                gpu.decode(&view[place..place + len], &mut host[range.clone()]);
                place += len;
            }
        })
    }

    /// The first words that a finished run with [`Wanted::Found`] has found.
    pub(crate) fn read_found(&self, gpu: &Gpu, words: &mut Vec<u32>) -> Result<()> {
        let n_bytes = 4 * self.program.found.n_read;
        words.clear();
        self.read(gpu, |view| words.extend_from_slice(bytemuck::cast_slice(&view[..n_bytes])))
    }

    /// Appends further words of what was found, by way of another submission.
    pub(crate) fn fetch_found(&mut self, gpu: &Gpu, range: Range<usize>, words: &mut Vec<u32>) -> Result<()> {
        let bytes = 4 * range.start as u64..4 * range.end as u64;
        let append = |part: &[u8]| words.extend_from_slice(bytemuck::cast_slice(part));
        self.traffic.read_back += self.fetch(gpu, &self.found, bytes, append)?;
        Ok(())
    }

    /// Brings a part of the arena, in whole groups, to its place in an arena on the host, by way of another submission.
    pub(crate) fn fetch_values(&mut self, gpu: &Gpu, range: Range<usize>, host: &mut [f32]) -> Result<()> {
        let size = gpu.element_bytes() as usize;
        let bytes = (size * range.start) as u64..(size * range.end) as u64;
        let mut rest = &mut host[range];
        let decode = |part: &[u8]| {
            let (values, behind) = std::mem::take(&mut rest).split_at_mut(part.len() / size);
            gpu.decode(part, values);
            rest = behind;
        };
        self.traffic.read_back += self.fetch(gpu, &self.arena, bytes, decode)?;
        Ok(())
    }

    /// Has the device do something with the outputs of a finished run, and returns the words of the result.
    pub(crate) fn run_errand(&mut self, gpu: &Gpu, errand: &Errand) -> Result<Vec<u32>> {
        let program = Arc::clone(&self.program);
        let Some(dispatch) = program.errand() else {
            return Err(Error::unsupported("gpu", "the program has no such work"));
        };
        let Errand { words, n_workgroups, n_results } = errand;
        let [sent, results] = [words.len(), *n_results].map(|n| 4 * n as u64);
        let last = self.errand.take().filter(|(buffer, _)| buffer.size() >= sent + results);
        let (buffer, group) = match last {
            Some(last) => last,
            None => {
                use wgpu::BufferUsages as Usage;
                let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
                let buffer = gpu.buffer("an errand", sent + results, usage)?;
                let group = gpu.guarded(|| self.bind_one(gpu, dispatch, &buffer))?;
                (buffer, group)
            }
        };
        let n_workgroups = u32::try_from(*n_workgroups).map_err(|_| too_large(gpu))?;
        let [x, y] = grid(gpu, n_workgroups)?;
        gpu.guarded(|| {
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &group, &[]);
                pass.dispatch_workgroups(x, y, 1);
            }
            gpu.submit(encoder)
        })?;
        let mut all = Vec::with_capacity(*n_results);
        let append = |part: &[u8]| all.extend_from_slice(bytemuck::cast_slice(part));
        self.traffic.read_back += self.fetch(gpu, &buffer, sent..sent + results, append)?;
        self.traffic.uploaded += sent;
        self.errand = Some((buffer, group));
        Ok(all)
    }

    /// Shows `look` a part of a buffer, in pieces that the host has room for, and says how many bytes that were.
    fn fetch(
        &self,
        gpu: &Gpu,
        buffer: &wgpu::Buffer,
        range: Range<u64>,
        mut look: impl FnMut(&[u8]),
    ) -> Result<u64> {
        let mut start = range.start;
        while start < range.end {
            let n = self.readback.size().min(range.end - start);
            let submission = gpu.guarded(|| {
                let mut encoder =
                    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                encoder.copy_buffer_to_buffer(buffer, start, &self.readback, 0, n);
                gpu.submit(encoder)
            })?;
            let mapped = gpu.guarded(|| map((&self.readback, wgpu::MapMode::Read)))?;
            wait(gpu, submission, &[mapped])?;
            self.read(gpu, |view| look(&view[..n as usize]))?;
            start += n;
        }
        Ok(range.end - range.start)
    }

    /// Looks at what came back, and gives the buffer back to the device.
    fn read(&self, gpu: &Gpu, look: impl FnOnce(&[u8])) -> Result<()> {
        {
            let view = self.readback.get_mapped_range(..).map_err(|cause| {
                let message = format!("the outputs of {} can't be read", gpu.adapter().name);
                Error::device("gpu", message).with_source(cause)
            })?;
            look(&view);
        }
        self.readback.unmap();
        Ok(())
    }
}

fn too_large(gpu: &Gpu) -> Error {
    Error::limit("gpu", format!("pictures that are too large for {}", gpu.adapter().name))
}

/// Bytes of all outputs.
fn values_bytes(gpu: &Gpu, program: &Program) -> u64 {
    program.outputs.iter().map(|range| range.len() as u64 * gpu.element_bytes()).sum()
}

/// A mapped buffer for what is sent.
fn upload_buffer(gpu: &Gpu, bytes: u64) -> Result<wgpu::Buffer> {
    gpu.mapped_buffer("upload", bytes, wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC)
}

/// Asks for a buffer; the answer comes while somebody waits for the device.
pub(super) fn map((buffer, mode): (&wgpu::Buffer, wgpu::MapMode)) -> mpsc::Receiver<Mapped> {
    let (sender, receiver) = mpsc::channel();
    buffer.map_async(mode, .., move |result| {
        // Nobody waits any more if the run was given up.
        let _ = sender.send(result);
    });
    receiver
}

/// Waits for a submission, and for the buffers that were asked for behind it.
pub(super) fn wait(
    gpu: &Gpu,
    submission: wgpu::SubmissionIndex,
    mapped: &[mpsc::Receiver<Mapped>],
) -> Result<()> {
    let name = &gpu.adapter().name;
    let patience = gpu.patience();
    let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(patience) };
    // wgpu panics if the device is lost while it waits. By then it has said so, which is checked first.
    let polled = catch_unwind(AssertUnwindSafe(|| gpu.device.poll(wait)));
    gpu.check()?;
    let polled = polled.map_err(|_| Error::device("gpu", format!("{name} was lost during a run")))?;
    polled.map_err(|cause| {
        let message = format!("{name} has not answered for {patience:?}");
        Error::device("gpu", message).with_source(cause)
    })?;
    for answer in mapped {
        let mapped = answer
            .recv_timeout(patience)
            .map_err(|_| Error::device("gpu", format!("{name} gave no outputs")))?;
        mapped.map_err(|cause| {
            Error::device("gpu", format!("the buffers of {name} can't be reached")).with_source(cause)
        })?;
    }
    Ok(())
}
