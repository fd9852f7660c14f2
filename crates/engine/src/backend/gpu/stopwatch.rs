//! The time between two moments on a device.

use std::sync::mpsc;
use std::time::Duration;

use super::device::Gpu;
use super::frame::{Mapped, map};
use crate::error::{Error, Result};

/// Two timestamps of a pass.
#[derive(Debug)]
pub(super) struct Stopwatch {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
}

/// Two numbers of 64 bits.
const BYTES: u64 = 16;

impl Stopwatch {
    /// None if the device tells no time.
    pub(super) fn new(gpu: &Gpu) -> Result<Option<Self>> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        use wgpu::BufferUsages as Usage;
        let resolved = gpu.buffer("timestamps", BYTES, Usage::QUERY_RESOLVE | Usage::COPY_SRC)?;
        let readback = gpu.buffer("timestamps", BYTES, Usage::MAP_READ | Usage::COPY_DST)?;
        let set = gpu.guarded(|| {
            gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        })?;
        Ok(Some(Self { set, resolved, readback }))
    }

    /// For the pass that is timed.
    pub(super) fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// To be called after the pass.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.set, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, BYTES);
    }

    /// To be waited for after the submission.
    pub(super) fn map(&self, gpu: &Gpu) -> Result<mpsc::Receiver<Mapped>> {
        gpu.guarded(|| map((&self.readback, wgpu::MapMode::Read)))
    }

    /// The time that the pass took, once the answer to [`Stopwatch::map`] has come. None if the device's clock did not
    /// move.
    pub(super) fn read(&self, gpu: &Gpu) -> Result<Option<Duration>> {
        let ticks = {
            let view = self.readback.get_mapped_range(..).map_err(|cause| {
                let message = format!("the timestamps of {} can't be read", gpu.adapter().name);
                Error::device("gpu", message).with_source(cause)
            })?;
            let stamps: &[u64] = bytemuck::cast_slice(&view);
            stamps[1].saturating_sub(stamps[0])
        };
        self.readback.unmap();
        let ns = ticks as f64 * f64::from(gpu.queue.get_timestamp_period());
        Ok((ticks > 0).then(|| Duration::from_nanos(ns as u64)))
    }
}
