//! A session's part: buffers, bind groups, and the way there and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ferroyolo_kernels::Arena;

use super::device::Gpu;
use super::program::{Dispatch, Program};
use crate::error::{Error, Result};

/// A device that has not answered for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Buffers and bind groups for runs of one program, one at a time.
#[derive(Debug)]
pub(crate) struct Runner {
    program: Arc<Program>,
    arena: wgpu::Buffer,
    readback: wgpu::Buffer,
    bind_groups: Vec<wgpu::BindGroup>,
}

impl Runner {
    /// `weights` is the buffer with all weights of the network. The buffers of `last`, which ran another program, are
    /// used again where they are large enough.
    pub(crate) fn new(
        gpu: &Gpu,
        program: Arc<Program>,
        weights: &wgpu::Buffer,
        last: Option<Self>,
    ) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let bytes = |n: usize| n as u64 * gpu.element_bytes();
        let (arena, readback) = last.map_or((None, None), |last| (Some(last.arena), Some(last.readback)));
        let fit = |old: Option<wgpu::Buffer>, label, n, usage| match old.filter(|old| old.size() >= bytes(n))
        {
            Some(old) => Ok(old),
            None => gpu.buffer(label, bytes(n), usage),
        };
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let arena = fit(arena, "activations", program.arena_len, usage)?;
        let n_outputs = program.outputs.iter().map(ExactSizeIterator::len).sum();
        let readback = fit(readback, "outputs", n_outputs, Usage::MAP_READ | Usage::COPY_DST)?;
        let bind_groups = gpu.guarded(|| {
            let group = |dispatch: &Dispatch| bind_group(gpu, &program, dispatch, &arena, weights);
            program.dispatches.iter().map(group).collect()
        })?;
        Ok(Self { program, arena, readback, bind_groups })
    }

    /// Whether this was made for `program`.
    pub(crate) fn is_for(&self, program: &Arc<Program>) -> bool {
        Arc::ptr_eq(&self.program, program)
    }

    /// Takes the picture from `host` through the network, and brings the outputs back to their places there.
    pub(crate) fn run(&mut self, gpu: &Gpu, host: &mut Arena) -> Result<()> {
        let Self { program, arena, readback, bind_groups } = self;
        let bytes = |n: usize| n as u64 * gpu.element_bytes();
        let submission = gpu.guarded(|| {
            let picture = gpu.encode(&program.input.values(host.as_slice()));
            gpu.queue.write_buffer(arena, bytes(program.input.range.start), &picture);
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                for (dispatch, group) in program.dispatches.iter().zip(bind_groups) {
                    pass.set_pipeline(&dispatch.pipeline);
                    pass.set_bind_group(0, &*group, &[]);
                    let [x, y] = dispatch.workgroups;
                    pass.dispatch_workgroups(x, y, 1);
                }
            }
            let mut place = 0;
            for range in &program.outputs {
                let len = bytes(range.len());
                encoder.copy_buffer_to_buffer(arena, bytes(range.start), readback, place, len);
                place += len;
            }
            gpu.queue.submit([encoder.finish()])
        })?;
        self.fetch(gpu, submission, host)
    }

    fn fetch(&self, gpu: &Gpu, submission: wgpu::SubmissionIndex, host: &mut Arena) -> Result<()> {
        let (sender, answer) = mpsc::channel();
        self.readback.map_async(wgpu::MapMode::Read, .., move |result| {
            // Nobody waits any more if the run was given up.
            let _ = sender.send(result);
        });
        let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(PATIENCE) };
        // wgpu panics if the device is lost while it waits. By then it has said so, which is checked first.
        let polled = catch_unwind(AssertUnwindSafe(|| gpu.device.poll(wait)));
        gpu.check()?;
        let name = &gpu.adapter().name;
        let polled = polled.map_err(|_| Error::device("gpu", format!("{name} was lost during a run")))?;
        polled.map_err(|cause| Error::device("gpu", format!("{name} does not answer")).with_source(cause))?;
        let mapped = answer
            .recv_timeout(PATIENCE)
            .map_err(|_| Error::device("gpu", format!("{} gave no outputs", gpu.adapter().name)))?;
        mapped.map_err(|cause| {
            Error::device("gpu", format!("the outputs of {} can't be read", gpu.adapter().name))
                .with_source(cause)
        })?;
        {
            let view = self
                .readback
                .get_mapped_range(..)
                .map_err(|cause| Error::device("gpu", "the outputs can't be read").with_source(cause))?;
            let mut place = 0;
            for range in &self.program.outputs {
                let len = range.len() * gpu.element_bytes() as usize;
                gpu.decode(&view[place..place + len], &mut host.as_mut_slice()[range.clone()]);
                place += len;
            }
        }
        self.readback.unmap();
        Ok(())
    }
}

fn bind_group(
    gpu: &Gpu,
    program: &Program,
    dispatch: &Dispatch,
    arena: &wgpu::Buffer,
    weights: &wgpu::Buffer,
) -> wgpu::BindGroup {
    let part = |buffer, range: &std::ops::Range<u64>| {
        let size = wgpu::BufferSize::new(range.end - range.start);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: range.start, size })
    };
    let resources =
        [part(&program.jobs, &dispatch.jobs), arena.as_entire_binding(), part(weights, &dispatch.weights)];
    let n_buffers = if dispatch.key.shader.has_weights { 3 } else { 2 };
    let entries: Vec<_> = (0..)
        .zip(resources)
        .take(n_buffers)
        .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
        .collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(dispatch.key.shader.name),
        layout: gpu.layout(&dispatch.key.shader),
        entries: &entries,
    })
}
