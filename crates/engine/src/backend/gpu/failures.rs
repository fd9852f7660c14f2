//! What a device refuses: whatever is beyond its limits, and everything once it is gone.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ferroyolo_kernels::Arena;
use ferroyolo_shaders::Element;

use super::tests::{SMALL, demo, demo_bytes};
use super::{Gpu, adapters, automatically, for_tests, smallest_limits};
use crate::error::{Error, ErrorKind};
use crate::network::{Network, OnDevice, Planned};
use crate::{Device, Image, Model, ModelOptions, PredictOptions};

/// A device with the smallest limits that are accepted, changed once more. None if there is no device.
fn within(change: impl FnOnce(&mut wgpu::Limits)) -> Option<Gpu> {
    let index = for_tests(Element::F32)?.adapter().index;
    let mut limits = smallest_limits();
    change(&mut limits);
    Some(Gpu::open_within(Some(index), Element::F32, Some(limits)).expect("a device"))
}

/// What the network computes from a pattern, all of the arena that is read back.
fn outputs(network: &Network, planned: &Planned) -> Vec<u32> {
    let mut arena: Arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
    let values = arena.as_mut_slice().iter_mut().enumerate();
    values.for_each(|(idx, value)| *value = (idx * 37 % 256) as f32 / 255.0);
    network.run(planned, &mut arena, &mut OnDevice::default()).expect("a run");
    arena.as_slice().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn rows_of_workgroups_change_nothing() {
    let Some(wide) = within(|_| ()) else { return };
    let Some(narrow) = within(|limits| limits.max_compute_workgroups_per_dimension = 16) else { return };
    let [wide, narrow] = [wide, narrow].map(demo);
    let [in_a_row, in_rows] = [&wide, &narrow].map(|network| network.plan(SMALL).expect("a plan"));
    let n_rows = |planned: &Planned| {
        let program = planned.program().expect("a program");
        program.stages().iter().flat_map(|stage| stage.iter()).map(|dispatch| dispatch.workgroups[1]).max()
    };
    assert_eq!(n_rows(&in_a_row), Some(1));
    assert!(n_rows(&in_rows) > Some(1), "nothing is wider than 16 workgroups");
    assert!(outputs(&wide, &in_a_row) == outputs(&narrow, &in_rows), "outputs differ");
}

#[test]
fn more_workgroups_than_a_device_has_are_told() {
    let Some(gpu) = within(|limits| limits.max_compute_workgroups_per_dimension = 2) else { return };
    let error = demo(gpu).plan(SMALL).expect_err("at most four workgroups");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("workgroups"), "{error}");
}

#[test]
fn workgroups_that_are_too_small_are_told() {
    let Some(gpu) = within(|limits| limits.max_compute_invocations_per_workgroup = 32) else { return };
    let error = demo(gpu).plan(SMALL).expect_err("too few invocations");
    assert!(matches!(error.kind(), ErrorKind::Limit | ErrorKind::Device), "{error}");
}

#[test]
fn buffers_that_are_too_small_are_told() {
    let Some(gpu) = within(|limits| {
        limits.max_buffer_size = 1 << 16;
        limits.max_storage_buffer_binding_size = 1 << 16;
    }) else {
        return;
    };
    let name = gpu.adapter().name.clone();
    let error = network_on(gpu).expect_err("no room for the weights");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(error.to_string().contains("for weights") && error.to_string().contains(&name), "{error}");
}

fn network_on(gpu: Gpu) -> Result<Network, Error> {
    let (graph, head) = super::tests::demo_parts();
    Network::on_gpu(graph, head, crate::backend::Cpu::new(Some(1), None)?, gpu)
}

#[test]
fn auto_leaves_a_device_without_memory() {
    let mut all = adapters();
    let Some(index) = for_tests(Element::F32).map(|gpu| gpu.adapter().index) else { return };
    all[index].is_software = false;
    all.drain(..index);
    let on_gpu = |index| {
        let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..smallest_limits() };
        let network = network_on(Gpu::open_within(Some(index), Element::F32, Some(limits))?)?;
        network.plan(([1, 640, 640], SMALL.1)).map(|_| None)
    };
    let why = automatically(&all, on_gpu, Ok).expect("the CPU").expect("a reason");
    assert_eq!(why.kind(), ErrorKind::Limit, "{why}");
    assert!(why.to_string().contains(&all[0].name), "{why}");
}

#[test]
fn devices_that_do_not_answer_in_time_are_given_up() {
    let Some(index) = for_tests(Element::F32).map(|gpu| gpu.adapter().index) else { return };
    let with = |patience| {
        let options = ModelOptions { device: Device::Gpu(Some(index)), patience, ..ModelOptions::default() };
        Model::from_bytes("demo", &demo_bytes(), &options).expect("a model")
    };
    let model = with(Some(Duration::ZERO));
    let image = Image::from_rgb8(640, 640, vec![128; 3 * 640 * 640]).expect("a picture");
    let options = PredictOptions { imgsz: Some([640; 2]), ..PredictOptions::default() };
    let error = model.predict(&image, &options).expect_err("nothing is done in no time");
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    let name = model.device_name();
    assert!(error.message().ends_with(" has not answered for 0ns"), "{error}");
    assert!(name.contains(error.message().trim_end_matches(" has not answered for 0ns")), "{error}, {name}");
    // Another one that is opened as usual has time enough.
    let small = PredictOptions { imgsz: Some([64; 2]), ..PredictOptions::default() };
    with(None).predict(&image, &small).expect("a run");
}

#[test]
fn all_sessions_are_told_of_a_lost_device() {
    let Some(index) = for_tests(Element::F32).map(|gpu| gpu.adapter().index) else { return };
    let options = ModelOptions { device: Device::Gpu(Some(index)), ..ModelOptions::default() };
    let model = Model::from_bytes("demo", &demo_bytes(), &options).expect("a model");
    let pixels = (0..3 * 80 * 60u32).map(|idx| (idx * 37 % 251) as u8).collect();
    let image = Image::from_rgb8(80, 60, pixels).expect("a picture");
    let options = PredictOptions { imgsz: Some([64, 64]), conf: 0.01, ..PredictOptions::default() };
    let expected = model.predict(&image, &options).expect("a run").to_json()["results"].clone();

    let (sender, runs) = mpsc::channel();
    let work = |sender: mpsc::Sender<()>| {
        let mut session = model.session();
        loop {
            match session.predict(&[&image], &options) {
                Ok(results) => assert_eq!(results[0].to_json()["results"], expected),
                Err(first) => {
                    let second = session.predict(&[&image], &options).expect_err("it stays lost");
                    return [first, second];
                }
            }
            // Nobody counts any more when the device is gone.
            let _ = sender.send(());
        }
    };
    thread::scope(|scope| {
        let start = |sender| {
            let work = &work;
            scope.spawn(move || work(sender))
        };
        let workers: Vec<_> = (0..4).map(|_| start(sender.clone())).collect();
        drop(sender);
        (0..8).for_each(|_| runs.recv().expect("a run"));
        model.inner().network.gpu().expect("the device").destroy();
        for worker in workers {
            for error in worker.join().expect("no panic") {
                assert_eq!(error.kind(), ErrorKind::Device, "{error}");
            }
        }
    });
    // Whoever comes later is told, too, also of a shape that was not planned before.
    for imgsz in [[64, 64], [96, 64]] {
        let options = PredictOptions { imgsz: Some(imgsz), ..options.clone() };
        let error = model.predict(&image, &options).expect_err("the device is gone");
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    }
}
