//! Values that 16-bit floats can't hold.
//!
//! What a shader stores may become infinite, and what is computed of that no number, so that objects would be missing. So
//! shaders note it behind all activations. The host clears the note before a run and reads it with what it reads anyway.
//! A run with a note is an error. It is repeated dispatch by dispatch, to tell the layer and the pictures.

use ferroyolo_kernels::View;
use ferroyolo_shaders::{Element, Third};

use super::device::Gpu;
use super::frame::{Frame, READBACK, map, wait};
use crate::error::{Error, Result};

/// The last vector of an arena.
const NOTE_BYTES: u64 = 8;

/// The largest 16-bit float.
const LARGEST: f32 = 65504.0;

/// Half of a step above it: what is smaller is rounded to a number.
const TOO_LARGE: f32 = 65520.0;

impl Gpu {
    /// Bytes behind all activations in which shaders note what is too large; none of 32-bit floats.
    pub(super) fn note_bytes(&self) -> u64 {
        match self.element() {
            Element::F32 => 0,
            Element::F16 => NOTE_BYTES,
        }
    }

    /// The first finite value that would become infinite on the device.
    pub(super) fn first_too_large(&self, values: &[f32]) -> Option<f32> {
        let is_lost = |value: &f32| value.is_finite() && value.abs() >= TOO_LARGE;
        values.iter().copied().find(is_lost).filter(|_| self.element() == Element::F16)
    }
}

/// The note in an arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note<'a> {
    arena: &'a wgpu::Buffer,
    bytes: u64,
}

impl<'a> Note<'a> {
    pub(super) fn of(gpu: &Gpu, arena: &'a wgpu::Buffer) -> Self {
        Self { arena, bytes: gpu.note_bytes() }
    }

    /// Before a run.
    pub(super) fn clear(self, encoder: &mut wgpu::CommandEncoder) {
        if self.bytes > 0 {
            encoder.clear_buffer(self.arena, self.arena.size() - self.bytes, Some(self.bytes));
        }
    }

    /// After a run, to byte `at` of a buffer.
    pub(super) fn copy(self, encoder: &mut wgpu::CommandEncoder, to: &wgpu::Buffer, at: u64) {
        if self.bytes > 0 {
            encoder.copy_buffer_to_buffer(self.arena, self.arena.size() - self.bytes, to, at, self.bytes);
        }
    }
}

/// Whether something is noted at byte `at` of a mapped buffer.
pub(super) fn is_noted(gpu: &Gpu, readback: &wgpu::Buffer, at: u64) -> Result<bool> {
    if gpu.note_bytes() == 0 {
        return Ok(false);
    }
    let view = readback.get_mapped_range(at..at + gpu.note_bytes()).map_err(|cause| {
        Error::device("gpu", format!("the outputs of {} can't be read", gpu.adapter().name))
            .with_source(cause)
    })?;
    Ok(view.iter().any(|&byte| byte != 0))
}

/// Repeats a run of `frame` that noted something, dispatch by dispatch, and returns the place of the first that does;
/// `None` if it does not happen again. The frame can't be used for another run.
pub(crate) fn first_overflow(gpu: &Gpu, frame: &Frame) -> Result<Option<usize>> {
    let readback = gpu.buffer("a note", NOTE_BYTES, READBACK)?;
    let note = frame.note(gpu);
    // What looks for objects stores nothing in the arena.
    let network = frame.last_run().take_while(|(dispatch, _)| dispatch.key.shader.third != Third::Found);
    for (idx, (dispatch, group)) in network.enumerate() {
        let submission = gpu.guarded(|| {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if idx == 0 {
                frame.send_again(gpu, &mut encoder);
                note.clear(&mut encoder);
            }
            dispatch.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), group);
            note.copy(&mut encoder, &readback, 0);
            gpu.submit(encoder)
        })?;
        let mapped = gpu.guarded(|| map((&readback, wgpu::MapMode::Read)))?;
        wait(gpu, submission, &[mapped])?;
        if is_noted(gpu, &readback, 0)? {
            return Ok(Some(idx));
        }
        readback.unmap();
    }
    Ok(None)
}

/// The images of a map in 16-bit floats in which a value was too large: it is infinite there, or the largest that there is
/// on a device that cuts off.
pub(crate) fn images_beyond(values: &[f32], view: &View) -> Vec<usize> {
    let is_beyond = |[image, y, x]: [usize; 3]| {
        values[view.index(image, y, x)..][..view.c].iter().any(|value| value.abs() >= LARGEST)
    };
    let cells = |image| (0..view.h).flat_map(move |y| (0..view.w).map(move |x| [image, y, x]));
    (0..view.n).filter(|&image| cells(image).any(is_beyond)).collect()
}

/// What is told of values of `at` that were too large: of which of `n` pictures, if that is known.
pub(crate) fn overflow(at: &str, pictures: &[usize], n: usize) -> Error {
    let numbers: Vec<String> = pictures.iter().map(|picture| (picture + 1).to_string()).collect();
    let whose = match numbers.as_slice() {
        _ if n == 1 => String::new(),
        [] => format!(" of a batch of {n} pictures"),
        [one] => format!(" of picture {one} of {n}"),
        several => format!(" of pictures {} of {n}", several.join(", ")),
    };
    Error::overflow(at, format!("values{whose} are too large for 16-bit floats, which end at 65504; use f32"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ferroyolo_kernels::Scratch;

    use super::*;
    use crate::backend::gpu::{FoundLayout, GpuWeights, Program, Stages, Upload, for_tests};
    use crate::error::ErrorKind;
    use crate::ops::{Add, Op, StepIo, gpu};

    /// Adds two maps of these values, `[1, 1, values, channels]` with pixels of `stride` elements.
    fn add(device: &Gpu, values: [&[f32]; 2], channels: usize, stride: usize) -> Result<Vec<f32>> {
        let pixels = values[0].len() / channels;
        let len = (pixels * stride).next_multiple_of(16);
        let view = |map: usize| View::buffer(map * len, 1, 1, pixels, stride, 0).channels(0, channels);
        // What lies between the pixels is too large, and nobody's.
        let mut arena = vec![40_000.0; 3 * len];
        for (map, values) in values.into_iter().enumerate() {
            for (pixel, values) in values.chunks_exact(channels).enumerate() {
                arena[view(map).index(0, 0, pixel)..][..channels].copy_from_slice(values);
            }
        }
        let inputs = [view(0), view(1)];
        let io = StepIo { inputs: &inputs, output: view(2), scratch: Scratch { offset: 0, len: 0 } };
        let jobs = gpu::jobs(&Op::Add(Add), &GpuWeights::default(), &io);
        let stages = Stages { network: jobs.into_iter().map(|job| (1, job)).collect(), ..Stages::default() };
        let (upload, outputs) = (Upload::alike(0..arena.len()), std::iter::once(0..arena.len()).collect());
        let found = FoundLayout::default();
        let program = Program::of_stages(device, stages, arena.len(), upload, outputs, found)?;
        let mut frame = Frame::new(device, Arc::new(program), &device.weights_buffer(&[])?, None)?;
        frame.run(device, &mut arena)?;
        let row = |pixel| arena[view(2).index(0, 0, pixel)..][..channels].to_vec();
        Ok((0..pixels).flat_map(row).collect())
    }

    /// Every sum of numbers that 16-bit floats have; the first that is rounded up to infinity is 65520.
    #[test]
    fn what_is_stored_is_told_from_the_first_value_that_is_lost() {
        for element in [Element::F16, Element::F32] {
            let Some(gpu) = for_tests(element) else { return };
            for (channels, stride) in [(1, 1), (3, 3), (5, 7), (8, 8), (3, 4), (7, 8), (1, 4)] {
                for place in [0, channels - 1, 5 * channels, 9 * channels - 1] {
                    for (summands, is_lost) in [
                        ([40_000.0, 25_504.0], false),
                        ([40_000.0, 25_520.0], true),
                        ([-40_000.0, -25_520.0], true),
                        ([65_504.0, 8.0], false),
                        ([65_504.0, 65_504.0], true),
                        ([-65_504.0, f32::NEG_INFINITY], true),
                        ([f32::INFINITY, 1.0], true),
                        ([f32::NAN, 1.0], false),
                        ([0.0, 0.0], false),
                    ] {
                        let maps = summands.map(|summand| {
                            let mut values = vec![1.0; 9 * channels];
                            values[place] = summand;
                            values
                        });
                        let got = add(&gpu, [&maps[0], &maps[1]], channels, stride);
                        let what = format!("{element:?}, {channels} of {stride}, {summands:?} at {place}");
                        match got {
                            Err(error) => {
                                assert!(is_lost && element == Element::F16, "{what}: {error}");
                                assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
                            }
                            Ok(got) => {
                                assert!(!is_lost || element == Element::F32, "{what}: {got:?}");
                                let others = got.iter().enumerate().filter(|(idx, _)| *idx != place);
                                assert!(
                                    others.into_iter().all(|(_, value)| *value == 2.0),
                                    "{what}: {got:?}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_sent_and_too_large_is_told() {
        let Some(gpu) = for_tests(Element::F16) else { return };
        let error = add(&gpu, [&[1.0, 65_520.0, 1.0, 1.0], &[1.0; 4]], 4, 4).expect_err("too large");
        assert_eq!(error.kind(), ErrorKind::Overflow, "{error}");
        assert_eq!(error.at(), "images");
        assert!(error.message().contains("6.552e4"), "{error}");
    }

    #[test]
    fn images_are_named_by_what_they_hold() {
        let view = View::buffer(4, 3, 2, 2, 4, 0).channels(1, 2);
        let mut values = vec![f32::INFINITY; 4 + 3 * view.image_stride];
        for image in 0..3 {
            for cell in 0..4 {
                values[view.index(image, cell / 2, cell % 2)..][..2].fill(65_472.0);
            }
        }
        assert_eq!(images_beyond(&values, &view), [0usize; 0]);
        values[view.index(2, 1, 1) + 1] = f32::NEG_INFINITY;
        assert_eq!(images_beyond(&values, &view), [2]);
        values[view.index(0, 0, 1)] = 65_504.0;
        assert_eq!(images_beyond(&values, &view), [0, 2]);
    }

    #[test]
    fn errors_count_pictures_from_one() {
        let told = |pictures: &[usize], n| overflow("model.0", pictures, n).to_string();
        let rest = "are too large for 16-bit floats, which end at 65504; use f32";
        assert_eq!(told(&[0], 1), format!("model.0: values {rest}"));
        assert_eq!(told(&[], 2), format!("model.0: values of a batch of 2 pictures {rest}"));
        assert_eq!(told(&[1], 3), format!("model.0: values of picture 2 of 3 {rest}"));
        assert_eq!(told(&[0, 2], 3), format!("model.0: values of pictures 1, 3 of 3 {rest}"));
    }
}
