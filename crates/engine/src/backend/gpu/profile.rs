//! How long the dispatches of a run take, by the device's own clock.

use std::time::Duration;

use super::device::Gpu;
use super::frame::{Frame, wait};
use super::program::Dispatch;
use super::stopwatch::Stopwatch;
use crate::error::{Error, Result};

/// Medians of several runs.
#[derive(Debug)]
pub(crate) struct Times {
    /// Of each dispatch of the run, in order.
    pub dispatches: Vec<Duration>,
    /// From the beginning of the first to the end of the last in a run that is not taken apart.
    pub run: Duration,
}

/// Repeats the dispatches of the last run of `frame` so many times, on what that run has left there.
///
/// Errors with `ErrorKind::Unsupported` if the device tells no times.
pub(crate) fn times(gpu: &Gpu, frame: &Frame, n_runs: usize) -> Result<Times> {
    let work: Vec<(&Dispatch, &wgpu::BindGroup)> = frame.last_run().collect();
    let stopwatch = Stopwatch::new(gpu, 1 + work.len())?.ok_or_else(|| {
        Error::unsupported("gpu", format!("{} has no time stamps for a profile", gpu.adapter().name))
    })?;
    // What has counted has to begin anew.
    let (parameters, found) = frame.parameters();
    let bytes: &[u8] = bytemuck::cast_slice(parameters);
    let fresh = gpu.buffer_with("parameters", bytes, wgpu::BufferUsages::COPY_SRC)?;
    let renew = |encoder: &mut wgpu::CommandEncoder| {
        if !bytes.is_empty() {
            encoder.copy_buffer_to_buffer(&fresh, 0, found, 0, bytes.len() as u64);
        }
    };
    let mut all = vec![Vec::with_capacity(n_runs.max(1)); 1 + work.len()];
    for _ in 0..n_runs.max(1) {
        let submission = gpu.guarded(|| {
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let timed = |pass| wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: Some(stopwatch.writes(pass)),
            };
            renew(&mut encoder);
            {
                let mut pass = encoder.begin_compute_pass(&timed(0));
                work.iter().for_each(|(dispatch, group)| dispatch.encode(&mut pass, group));
            }
            renew(&mut encoder);
            for (idx, (dispatch, group)) in (1..).zip(&work) {
                dispatch.encode(&mut encoder.begin_compute_pass(&timed(idx)), group);
            }
            stopwatch.resolve(&mut encoder);
            gpu.submit(encoder)
        })?;
        let mapped = stopwatch.map(gpu)?;
        wait(gpu, submission, &[mapped])?;
        all.iter_mut().zip(stopwatch.read(gpu)?).for_each(|(times, time)| times.push(time));
    }
    let mut medians = all.into_iter().map(median);
    let run = medians.next().unwrap_or_default();
    Ok(Times { dispatches: medians.collect(), run })
}

/// The middle one; of an even number the later of the two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ferroyolo_shaders::Element;

    use super::*;
    use crate::backend::gpu::tests::{SMALL, demo};
    use crate::backend::gpu::{Input, Wanted, for_tests};
    use crate::network::OnDevice;
    use crate::tasks::detect::Filter;

    /// Shaders count what they find in a buffer that has room for one run.
    #[test]
    fn repeated_runs_find_what_one_finds() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        let network = demo(gpu);
        let planned = network.plan(SMALL).expect("a plan");
        let arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
        let layout = planned.found.expect("objects are found on the device");
        let parameters = layout.parameters(&Filter { conf: 0.0, classes: None, multi_label: false });
        let (input, wanted) = (Input::Values(arena.as_slice()), Wanted::Found(&parameters));
        let mut frame = network.start(&planned, input, wanted, &mut OnDevice::default()).expect("a run");
        let gpu = network.gpu().expect("the device");
        frame.finish(gpu).expect("a run");
        let mut found = Vec::new();
        frame.read_found(gpu, &mut found).expect("what was found");
        assert_ne!(found[..parameters.len()], parameters, "nothing was counted");
        if !gpu.adapter().has_timestamps {
            let error = times(gpu, &frame, 1).expect_err("no clock");
            assert_eq!(error.kind(), crate::ErrorKind::Unsupported, "{error}");
            return;
        }
        let times = times(gpu, &frame, 3).expect("times");
        assert_eq!(times.dispatches.len(), frame.last_run().count());
        let mut again = Vec::new();
        frame.fetch_found(gpu, 0..parameters.len(), &mut again).expect("what was found");
        assert_eq!(again, found[..parameters.len()]);
    }

    #[test]
    fn the_middle_of_the_runs_counts() {
        let ms = |all: &[u64]| median(all.iter().map(|&ms| Duration::from_millis(ms)).collect());
        assert_eq!(ms(&[3, 90, 1]), Duration::from_millis(3));
        assert_eq!(ms(&[]), Duration::ZERO);
    }
}
