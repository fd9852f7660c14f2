//! Which way to convolve is the fastest on a device, as measured there.
//!
//! Each dispatch of convolutions that is not known yet is carried out in the likeliest ways, at most [`BUDGET`] long for
//! a model; what is left then is guessed. Choices are kept in a file for each adapter and number format.
//!
//! One program is measured at a time, since measurements would disturb each other, and nobody waits for it: whoever makes
//! another program meanwhile guesses what is not known. Runs go on, too. With Vulkan they do not count by the device's own
//! clock, since wgpu has one submission come after the other there; else what was measured beside them is used, but not
//! kept.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ferroyolo_shaders::Lanes;

use super::device::Gpu;
use super::frame::{Frame, NETWORK, wait};
use super::job::Job;
use super::kept::{Kept, whose};
use super::program::{FoundLayout, Program, Stages, Upload};
use super::stopwatch::Stopwatch;
use super::variant::{Choose, Nth, Product, Variant, by_cost, variants};
use crate::error::{Error, ErrorKind, Result};

/// Time for the measurements of a model. The last one may end a little later.
pub(crate) const BUDGET: Duration = Duration::from_secs(2);

/// Ways that are measured for a dispatch, and of those of one shader; the others are not likely.
const MAX_CANDIDATES: usize = 6;
const MAX_OF_A_SHADER: usize = 3;

/// A measurement repeats a dispatch until it has taken about so long, so that its beginning and end count for little.
const LONG_ENOUGH: Duration = Duration::from_millis(2);

/// Repetitions in a measurement, at most.
const MAX_REPEATS: u32 = 16;

/// Measures for one model, and remembers.
pub(crate) struct Tuner {
    folder: Option<PathBuf>,
    known: Mutex<Known>,
    /// What is left of the time for measurements. Whoever measures has it until his program is made.
    left: Mutex<Duration>,
    /// Is called before each dispatch that is measured.
    #[cfg(test)]
    pub(super) before: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Debug)]
struct Known {
    kept: Kept,
    has_news: bool,
}

impl std::fmt::Debug for Tuner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tuner").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Tuner {
    /// A tuner that knows what the file of this adapter in `folder` says, and writes what it finds there.
    pub(crate) fn new(gpu: &Gpu, folder: Option<&Path>) -> Self {
        let adapter = whose(&gpu.device.adapter_info(), gpu.element());
        // Choices hold for the very shaders that were measured.
        let text: String = variants(gpu)
            .iter()
            .map(|variant| variant.name() + &variant.shader.wgsl(gpu.element(), Lanes::Four))
            .collect();
        let mut kept = Kept::new("gpu-tuning", adapter, &text);
        if let Some(folder) = folder {
            kept.read(folder);
        }
        Self {
            folder: folder.map(Path::to_owned),
            known: Mutex::new(Known { kept, has_news: false }),
            left: Mutex::new(BUDGET),
            #[cfg(test)]
            before: None,
        }
    }

    /// For a program on an arena of so many elements; `weights` is the buffer with all weights of the network.
    pub(crate) fn chooser<'a>(&'a self, weights: &'a wgpu::Buffer, arena_len: usize) -> Tuned<'a> {
        Tuned { tuner: self, weights, arena_len, frame: None, turn: None }
    }

    /// Writes what is new. A folder that can't be written to does no harm but that the next process measures again.
    pub(crate) fn keep(&self) {
        let Some(folder) = self.folder.as_deref() else { return };
        let mut kept = {
            let mut known = self.known();
            if !std::mem::take(&mut known.has_news) {
                return;
            }
            known.kept.clone()
        };
        // A disk may be slow, and others want to know what is known.
        if kept.write(folder).is_err() {
            self.known().has_news = true;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change of it is a single step, so a panic elsewhere while it was locked does no harm.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where among `variants` the way is that is known to be the fastest.
    fn find(&self, key: &str, variants: &[&Variant]) -> Option<usize> {
        let known = self.known();
        let name = known.kept.get(key)?;
        variants.iter().position(|variant| variant.name() == name)
    }

    /// The time that is left for measurements, unless somebody else is measuring.
    fn take_turn(&self) -> Option<MutexGuard<'_, Duration>> {
        match self.left.try_lock() {
            Ok(left) => Some(left),
            // A panic in the middle of a measurement leaves the time as it was.
            Err(TryLockError::Poisoned(left)) => Some(left.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The same with as much time as it needs.
    #[cfg(test)]
    pub(super) fn patient(self) -> Self {
        *self.take_turn().expect("nobody measures yet") = Duration::from_secs(600);
        self
    }

    /// What is left of the time for measurements.
    #[cfg(test)]
    fn left(&self) -> Duration {
        *self.take_turn().expect("nobody measures any more")
    }
}

/// Chooses by measurements, for one program.
#[derive(Debug)]
pub(crate) struct Tuned<'a> {
    tuner: &'a Tuner,
    weights: &'a wgpu::Buffer,
    arena_len: usize,
    /// Of the last measurement, for its buffers.
    frame: Option<Frame>,
    /// The time that is left, from the first measurement on.
    turn: Option<MutexGuard<'a, Duration>>,
}

impl Choose for Tuned<'_> {
    fn choose(&mut self, gpu: &Gpu, variants: &[&Variant], jobs: &[Job]) -> Result<usize> {
        let products: Vec<Product> = jobs.iter().filter_map(|job| job.product).collect();
        let order = candidates(variants, &by_cost(variants, &products, gpu.adapter().is_software));
        let key = key(gpu, jobs, &products);
        if let Some(idx) = self.tuner.find(&key, variants) {
            return Ok(idx);
        }
        if order.len() == 1 {
            return Ok(order[0]);
        }
        if self.turn.is_none() {
            self.turn = self.tuner.take_turn();
            // Whoever had the turn before may have found it out.
            if let Some(idx) = self.tuner.find(&key, variants) {
                return Ok(idx);
            }
        }
        let Some(left) = self.turn.as_deref().copied() else { return Ok(order[0]) };
        #[cfg(test)]
        self.tuner.before.iter().for_each(|before| before());
        let start = Instant::now();
        let mut is_sure = true;
        let mut measure = |idx| {
            let measured = self.measure(gpu, idx, jobs)?;
            is_sure &= measured.is_sure;
            Ok(measured.took)
        };
        let trial = fastest(&order, left, &mut || start.elapsed(), &mut measure);
        let spent = trial.as_ref().map_or_else(|_| start.elapsed(), |trial| trial.spent);
        if let Some(left) = &mut self.turn {
            **left = left.saturating_sub(spent);
        }
        let trial = match trial {
            // Measurements take an arena of their own, for which there may be no memory. A run may still have it.
            Err(error) if error.kind() == ErrorKind::Limit => return Ok(order[0]),
            trial => trial?,
        };
        // Of two that were measured, the faster one is better than a guess, and so a slow device learns, too.
        if trial.n_measured > 1 && is_sure {
            let mut known = self.tuner.known();
            known.kept.put(key, variants[trial.best].name());
            known.has_news = true;
        }
        Ok(trial.best)
    }
}

impl Tuned<'_> {
    /// How long one dispatch of `jobs` takes in the way of this index.
    fn measure(&mut self, gpu: &Gpu, idx: usize, jobs: &[Job]) -> Result<Measured> {
        let stages =
            Stages { network: jobs.iter().map(|job| (1, job.clone())).collect(), ..Stages::default() };
        let nothing = (Upload::alike(0..0), Vec::new());
        let found = FoundLayout::default();
        let program =
            Program::of_stages_by(&mut Nth(idx), gpu, stages, self.arena_len, nothing.0, nothing.1, found)?;
        let frame = Frame::new(gpu, program.into(), self.weights, self.frame.take())?;
        let frame = self.frame.insert(frame);
        let stopwatch = Stopwatch::new(gpu, 1)?;
        let time = |n: u32| {
            let start = Instant::now();
            let submission = gpu.guarded(|| {
                let mut encoder =
                    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes: stopwatch.as_ref().map(|stopwatch| stopwatch.writes(0)),
                    });
                    (0..n).for_each(|_| frame.record(&mut pass, NETWORK));
                }
                if let Some(stopwatch) = &stopwatch {
                    stopwatch.resolve(&mut encoder);
                }
                gpu.submit(encoder)
            })?;
            let mapped = stopwatch.iter().map(|stopwatch| stopwatch.map(gpu)).collect::<Result<Vec<_>>>()?;
            wait(gpu, submission, &mapped)?;
            let elapsed = start.elapsed();
            let stamped =
                stopwatch.as_ref().map_or_else(|| Ok(Vec::new()), |stopwatch| stopwatch.read(gpu))?;
            let stamped = stamped.first().copied().filter(|time| !time.is_zero());
            Ok::<_, Error>((stamped.unwrap_or(elapsed) / n, stamped.is_some()))
        };
        // The first run pages memory in, and tells how many are wanted. What was submitted before is through then.
        let (first, _) = time(1)?;
        let n = LONG_ENOUGH.as_nanos().checked_div(first.as_nanos()).unwrap_or(u128::MAX);
        let n = u32::try_from(n).unwrap_or(MAX_REPEATS).clamp(1, MAX_REPEATS);
        let before = gpu.n_submitted();
        let [(one, is_stamped), (other, is_stamped_too)] = [time(n)?, time(n)?];
        let in_order = gpu.device.adapter_info().backend == wgpu::Backend::Vulkan;
        let is_stamped = in_order && is_stamped && is_stamped_too;
        let is_sure = is_stamped || are_alone(2, before, gpu.n_submitted());
        Ok(Measured { took: one.min(other), is_sure })
    }
}

/// Whether `n` submissions were the only ones between two looks at [`Gpu::n_submitted`].
fn are_alone(n: usize, before: Option<usize>, after: Option<usize>) -> bool {
    before.is_some_and(|before| after == Some(before + n))
}

/// How long something took.
#[derive(Clone, Copy, Debug)]
struct Measured {
    took: Duration,
    /// Whether nothing else can have been measured with it.
    is_sure: bool,
}

/// Those of the ways in `order` that are measured.
fn candidates(variants: &[&Variant], order: &[usize]) -> Vec<usize> {
    let mut taken: Vec<usize> = Vec::new();
    for &idx in order {
        let alike = taken.iter().filter(|&&other| variants[other].shader == variants[idx].shader);
        if alike.count() < MAX_OF_A_SHADER {
            taken.push(idx);
        }
    }
    taken.truncate(MAX_CANDIDATES);
    taken
}

/// What a dispatch is like: the same for the same amounts of the same work.
fn key(gpu: &Gpu, jobs: &[Job], products: &[Product]) -> String {
    let mut key = format!("{:?} {:?}", gpu.element(), jobs[0].lanes);
    for (name, value) in &jobs[0].overrides {
        key += &format!(" {name}={value}");
    }
    for product in products {
        let &Product { images: _, rows, columns, cells, channels, is_pointwise, across: _, arena_end: _ } =
            product;
        let window = if is_pointwise { "" } else { "w" };
        key += &format!(" {rows}x{columns}x{cells}{window}x{channels}");
    }
    key
}

/// What came out of measurements.
#[derive(Debug, PartialEq, Eq)]
struct Trial {
    best: usize,
    spent: Duration,
    n_measured: usize,
}

/// The fastest of `candidates`, the likeliest of which come first, as far as they can be measured before `left` is over.
///
/// `now` tells the time since the start. One that can't be measured is none, unless that holds for all.
fn fastest(
    candidates: &[usize],
    left: Duration,
    now: &mut dyn FnMut() -> Duration,
    measure: &mut dyn FnMut(usize) -> Result<Duration>,
) -> Result<Trial> {
    let mut best: Option<(Duration, usize)> = None;
    let mut failure = None;
    let mut n_tried = 0;
    for &candidate in candidates {
        if now() >= left {
            break;
        }
        n_tried += 1;
        match measure(candidate) {
            Ok(took) if best.is_none_or(|(fastest, _)| took < fastest) => best = Some((took, candidate)),
            Ok(_) => (),
            Err(error) => failure = Some(error),
        }
    }
    match (best, failure) {
        (None, Some(error)) => Err(error),
        (best, _) => {
            let best = best.map_or(candidates[0], |(_, candidate)| candidate);
            Ok(Trial { best, spent: now(), n_measured: n_tried })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use ferroyolo_kernels::View;
    use ferroyolo_shaders::Element;

    use super::*;
    use crate::backend::gpu::for_tests;
    use crate::backend::gpu::tests::{SMALL, demo};
    use crate::network::{Network, OnDevice, PlanKey};
    use crate::ops::conv2d::gpu::{ConvJob, conv_job, finish};

    const SECOND: Duration = Duration::from_secs(1);

    /// Candidates that take so many seconds to measure and then are as fast as listed, with seven seconds left.
    fn trial(costs: [u32; 3], times: [Option<u64>; 3]) -> Result<Trial> {
        let clock = std::cell::Cell::new(Duration::ZERO);
        let mut measure = |idx: usize| {
            clock.set(clock.get() + costs[idx] * SECOND);
            times[idx].map(Duration::from_micros).ok_or_else(|| Error::device("gpu", "refuses"))
        };
        fastest(&[2, 0, 1], 7 * SECOND, &mut || clock.get(), &mut measure)
    }

    #[test]
    fn the_fastest_is_found_while_there_is_time() {
        let done = |best, spent: u32, n_measured| Trial { best, spent: spent * SECOND, n_measured };
        assert_eq!(trial([1, 1, 1], [Some(5), Some(4), Some(6)]).expect("a trial"), done(1, 3, 3));
        // The second one comes when the time is over.
        assert_eq!(trial([1, 1, 7], [Some(5), Some(4), Some(6)]).expect("a trial"), done(2, 7, 1));
        assert_eq!(trial([6, 1, 1], [Some(5), Some(4), Some(6)]).expect("a trial"), done(0, 7, 2));
        assert_eq!(trial([1, 1, 1], [Some(5), None, Some(6)]).expect("a trial"), done(0, 3, 3));
        assert!(trial([1, 1, 1], [None; 3]).is_err());
        let late = fastest(&[2, 0], SECOND, &mut || SECOND, &mut |_| panic!("no time is left"));
        assert_eq!(late.expect("a trial"), done(2, 1, 0));
    }

    /// The outputs of the demo network on a small picture of noise, and what the tuner has left of its time.
    fn outputs(network: &Network, device: &mut OnDevice) -> Vec<f32> {
        let planned = network.plan(SMALL).expect("a plan");
        let mut arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
        for (idx, value) in arena.as_mut_slice().iter_mut().enumerate() {
            *value = ((idx * 7919) % 1009) as f32 / 1009.0;
        }
        network.run(&planned, &mut arena, device).expect("a run");
        let views = network.head().outputs().into_iter().filter_map(|value| planned.plan.views[value.0]);
        views.flat_map(|view| arena.as_slice()[view.offset..][..view.c].to_vec()).collect()
    }

    #[test]
    fn measured_choices_are_kept_and_change_nothing_but_roundings() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let want = outputs(&demo(gpu), &mut OnDevice::default());
        for is_first in [true, false] {
            let gpu = for_tests(Element::F32).expect("the same adapter");
            let tuner = Tuner::new(&gpu, Some(folder.path())).patient();
            let all = tuner.left();
            let network = demo(gpu).with_tuner(Some(tuner));
            let got = outputs(&network, &mut OnDevice::default());
            let scale = want.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
            let is_close = got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= 1e-4 * scale);
            assert!(is_close && got.len() == want.len(), "{got:?}, expected {want:?}");
            let left = network.tuner().expect("the tuner").left();
            // What is known is not measured again.
            assert_eq!(left < all, is_first);
        }
    }

    #[test]
    fn submissions_of_others_are_noticed() {
        assert!(are_alone(2, Some(5), Some(7)));
        for (before, after) in [(Some(5), Some(8)), (Some(5), None), (None, Some(7)), (None, None)] {
            assert!(!are_alone(2, before, after), "{before:?} {after:?}");
        }
        let Some(gpu) = for_tests(Element::F32) else { return };
        let network = demo(gpu);
        let n_submitted = || network.gpu().and_then(Gpu::n_submitted).expect("nothing is on its way");
        let before = n_submitted();
        outputs(&network, &mut OnDevice::default());
        assert_eq!(n_submitted(), before + 1);
    }

    #[test]
    fn number_formats_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let tuner = |element| Some(Tuner::new(&for_tests(element)?, Some(folder.path())));
        for element in [Element::F32, Element::F16] {
            let Some(tuner) = tuner(element) else { return };
            tuner.known().kept.put("a dispatch".into(), format!("{element:?}"));
            tuner.known().has_news = true;
            tuner.keep();
        }
        for element in [Element::F32, Element::F16] {
            let tuner = tuner(element).expect("the same adapter");
            assert_eq!(tuner.known().kept.get("a dispatch"), Some(&*format!("{element:?}")));
        }
    }

    /// A measurement has buffers of its own, which may be too much where the run itself is not.
    #[test]
    fn without_memory_for_measurements_the_likeliest_is_taken() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        let tuner = Tuner::new(&gpu, None).patient();
        let weights = gpu.weights_buffer(&[0.0; 72]).expect("memory");
        let [input, output] = [0, 512].map(|offset| View::buffer(offset, 1, 8, 8, 8, 0));
        let job = ConvJob { weights: 0, bias: 16, ..conv_job(&input, &output, [8, 8]) };
        let stages = Stages { network: vec![(1, finish(job, &[input, output]))], ..Stages::default() };
        let mut chooser = tuner.chooser(&weights, 1 << 50);
        let upload = Upload::alike(0..512);
        Program::of_stages_by(&mut chooser, &gpu, stages, 1024, upload, Vec::new(), FoundLayout::default())
            .expect("a program");
        assert!(!tuner.known().has_news);
    }

    /// Whoever needs another size plans and runs it, whoever needs the same waits for it, and nothing is made twice.
    #[test]
    fn threads_do_not_wait_while_another_program_is_measured() {
        const OTHER: PlanKey = ([1, 32, 96], SMALL.1);
        let Some(gpu) = for_tests(Element::F32) else { return };
        let mut tuner = Tuner::new(&gpu, None).patient();
        let (started, has_started) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        let words = Mutex::new((started, may_go));
        // The first thread is held at its first measurement, and nobody else may come to one before.
        tuner.before = Some(Box::new(move || {
            let (started, may_go) = &*words.try_lock().expect("one program is measured at a time");
            // Both are gone when the test lets go.
            if started.send(()).is_ok() {
                let _ = may_go.recv();
            }
        }));
        let network = demo(gpu).with_tuner(Some(tuner));
        let run = |key: PlanKey| {
            let planned = network.plan(key).expect("a plan");
            let mut arena = network.cpu().arena(planned.plan.arena_len).expect("memory");
            network.run(&planned, &mut arena, &mut OnDevice::default()).expect("a run");
            planned
        };
        thread::scope(|scope| {
            let run = &run;
            let first = scope.spawn(move || run(SMALL));
            has_started.recv().expect("the first measurement");
            let guessed = run(OTHER);
            // It is known now, and no slower for that.
            assert!(Arc::ptr_eq(&guessed, &run(OTHER)));
            let same = scope.spawn(move || run(SMALL));
            drop((go, has_started));
            let [first, same] = [first, same].map(|thread| thread.join().expect("no panic"));
            assert!(Arc::ptr_eq(&first, &same));
        });
    }

    #[test]
    fn folders_that_can_not_be_written_to_do_no_harm() {
        let Some(gpu) = for_tests(Element::F32) else { return };
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"in the way").expect("a file");
        let tuner = Tuner::new(&gpu, Some(&file));
        let network = demo(gpu).with_tuner(Some(tuner));
        assert!(!outputs(&network, &mut OnDevice::default()).is_empty());
    }
}
