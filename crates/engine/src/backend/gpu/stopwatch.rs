//! The times that passes take on a device.

use std::sync::mpsc;
use std::time::Duration;

use super::device::Gpu;
use super::frame::{Mapped, map};
use crate::error::{Error, Result};

/// Two timestamps of each of several passes.
#[derive(Debug)]
pub(super) struct Stopwatch {
    set: wgpu::QuerySet,
    n_stamps: u32,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
}

/// A number of 64 bits.
const STAMP: u64 = wgpu::QUERY_SIZE as u64;

impl Stopwatch {
    /// None if the device tells no time. Errors if the passes are too many for it.
    pub(super) fn new(gpu: &Gpu, n_passes: usize) -> Result<Option<Self>> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let n_stamps = u32::try_from(2 * n_passes).ok().filter(|&n| n <= wgpu::QUERY_SET_MAX_QUERIES);
        let n_stamps = n_stamps
            .ok_or_else(|| Error::limit("gpu", format!("{n_passes} passes are too many to be timed")))?;
        let bytes = u64::from(n_stamps) * STAMP;
        use wgpu::BufferUsages as Usage;
        let resolved = gpu.buffer("timestamps", bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC)?;
        let readback = gpu.buffer("timestamps", bytes, Usage::MAP_READ | Usage::COPY_DST)?;
        let set = gpu.guarded(|| {
            gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: n_stamps,
            })
        })?;
        Ok(Some(Self { set, n_stamps, resolved, readback }))
    }

    /// For a pass that is timed.
    pub(super) fn writes(&self, pass: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * pass),
            end_of_pass_write_index: Some(2 * pass + 1),
        }
    }

    /// To be called after all passes.
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.set, 0..self.n_stamps, &self.resolved, 0);
        let bytes = u64::from(self.n_stamps) * STAMP;
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, bytes);
    }

    /// To be waited for after the submission.
    pub(super) fn map(&self, gpu: &Gpu) -> Result<mpsc::Receiver<Mapped>> {
        gpu.guarded(|| map((&self.readback, wgpu::MapMode::Read)))
    }

    /// The time that each pass took, once the answer to [`Stopwatch::map`] has come; zero if the device's clock did not
    /// move.
    pub(super) fn read(&self, gpu: &Gpu) -> Result<Vec<Duration>> {
        let tick_ns = f64::from(gpu.queue.get_timestamp_period());
        let times = {
            let bytes = u64::from(self.n_stamps) * STAMP;
            let view = self.readback.get_mapped_range(..bytes).map_err(|cause| {
                let message = format!("the timestamps of {} can't be read", gpu.adapter().name);
                Error::device("gpu", message).with_source(cause)
            })?;
            let stamps: &[u64] = bytemuck::cast_slice(&view);
            stamps.as_chunks().0.iter().map(|stamps| between(*stamps, tick_ns)).collect()
        };
        self.readback.unmap();
        Ok(times)
    }
}

/// From the first stamp to the second one.
fn between([from, to]: [u64; 2], tick_ns: f64) -> Duration {
    Duration::from_nanos((to.saturating_sub(from) as f64 * tick_ns) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_counted_in_ticks() {
        assert_eq!(between([1000, 5000], 2.5), Duration::from_micros(10));
        assert_eq!(between([7, 7], 2.5), Duration::ZERO);
        // Some clocks go back when the device changes its frequency.
        assert_eq!(between([8, 7], 2.5), Duration::ZERO);
    }
}
