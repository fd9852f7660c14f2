//! What a device finds against the CPU's decoder, on the same raw maps.

use std::sync::Arc;

use ferroyolo_kernels::{Arena, Context, Isa, Threads, View};
use ferroyolo_shaders::Element;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Found, Layout, gpu, key};
use crate::backend::gpu::{Frame, Gpu, Input, Program, Stages, Upload, Wanted, for_tests};
use crate::graph::{Plan, ValueId};
use crate::modules::{Branch, Branches, DetectHead, Extra, Level, NetworkHead, Regression};
use crate::tasks::detect::{Decoder, Filter, Scratch};
use crate::tasks::nms::Candidate;
use crate::testing::cases;

/// Largest difference of a corner, relative to the larger of the stride and the corner: that of an exponential.
const CORNER_TOLERANCE: f32 = 2e-5;

/// Maps of a head and what is wanted of them.
#[derive(Clone, Debug)]
struct Case {
    n_images: usize,
    /// Height and width of each level.
    levels: Vec<[usize; 2]>,
    n_classes: usize,
    regression: Regression,
    extra: Extra,
    /// Of the branch without suppression, if that is meant.
    max_det: Option<usize>,
    conf: f32,
    classes: Option<Vec<usize>>,
    /// Logits are multiples of one over this: few different ones, many equal ones.
    steps: f32,
    /// Pixels begin at multiples of four elements.
    is_padded: bool,
    /// One of so many values is not a number or infinite.
    odd: Option<u64>,
    seed: u64,
}

const CASE: Case = Case {
    n_images: 1,
    levels: Vec::new(),
    n_classes: 80,
    regression: Regression::Distances { reg_max: 16 },
    extra: Extra::None,
    max_det: None,
    conf: 0.25,
    classes: None,
    steps: 1000.0,
    is_padded: false,
    odd: None,
    seed: 1,
};

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

impl Case {
    /// The head, its only plan, and raw values.
    fn build(&self) -> (DetectHead, Plan, Vec<f32>) {
        let n_boxes = match self.regression {
            Regression::Distances { reg_max } => 4 * reg_max,
            Regression::CenterSize => 4,
        };
        let has_objectness = self.regression == Regression::CenterSize;
        let (mut views, mut values) = (Vec::new(), Vec::new());
        let mut state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut place = |[h, w]: [usize; 2], channels: usize| {
            let offset = values.len();
            let room = if self.is_padded { channels.next_multiple_of(4) } else { channels };
            let len = View::buffer_len(self.n_images, h, w, room, 0).next_multiple_of(16);
            values.extend((0..len).map(|_| self.value(&mut state)));
            views.push(Some(View::buffer(offset, self.n_images, h, w, room, 0).channels(0, channels)));
            ValueId(views.len() - 1)
        };
        let mut levels = Vec::new();
        for &hw in &self.levels {
            let (boxes, classes) = (place(hw, n_boxes), place(hw, self.n_classes));
            let objectness = has_objectness.then(|| place(hw, 1));
            let extra = (self.extra.len() > 0).then(|| place(hw, self.extra.len()));
            levels.push(Level { boxes, classes, objectness, extra });
        }
        let branch = Branch { levels };
        let head = DetectHead {
            at: "model.0".to_owned(),
            n_classes: self.n_classes,
            strides: (0..self.levels.len()).map(|level| 8 << level).collect(),
            regression: self.regression,
            extra: self.extra,
            max_det: self.max_det.unwrap_or(300),
            one2many: branch.clone(),
            one2one: self.max_det.map(|_| branch),
        };
        let input = View::buffer(0, 1, 1, 1, 3, 0);
        (head, Plan { input, picture: input, views, steps: Vec::new(), arena_len: values.len() }, values)
    }

    /// From -6 to 6, or something that no map should have.
    fn value(&self, state: &mut u64) -> f32 {
        let random = next(state);
        if self.odd.is_some_and(|odd| random.is_multiple_of(odd)) {
            return [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0][(random >> 20) as usize % 4];
        }
        let value = ((random >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 12.0;
        (value * self.steps).round() / self.steps
    }

    fn branches(&self) -> Branches {
        Branches { one2many: self.max_det.is_none(), one2one: self.max_det.is_some() }
    }

    fn filter(&self) -> Filter<'_> {
        Filter { conf: self.conf, classes: self.classes.as_deref(), multi_label: false }
    }

    /// What is found in an image, with what comes with it.
    fn on_cpu(&self, decoder: &Decoder<'_>, arena: &Arena, image: usize) -> Vec<(Candidate, Vec<f32>)> {
        let threads = Threads::new(1).expect("a thread");
        let context = Context { isa: Isa::best(), threads: &threads };
        let mut scratch = Scratch::default();
        let mut candidates = Vec::new();
        if self.max_det.is_some() {
            decoder.top_k(context, arena, image, &mut scratch, |_, found| candidates.push(found));
        } else {
            decoder.candidates(context, arena, image, &self.filter(), &mut scratch, &mut candidates);
        }
        let with_extra = |found: Candidate| {
            let mut extra = Vec::new();
            decoder.extra(arena, image, found.anchor as usize, &mut extra);
            (found, extra)
        };
        candidates.into_iter().map(with_extra).collect()
    }

    fn on_gpu(&self, decoder: &Decoder<'_>, found: &Found, image: usize) -> Vec<(Candidate, Vec<f32>)> {
        let mut candidates = Vec::new();
        if self.max_det.is_some() {
            found.top_k(decoder, image, |found| candidates.push(found));
        } else {
            found.candidates(decoder, image, &self.filter(), &mut candidates);
        }
        let with_extra = |candidate: Candidate| {
            let mut extra = Vec::new();
            found.extra(decoder, image, candidate.anchor as usize, &mut extra);
            (candidate, extra)
        };
        candidates.into_iter().map(with_extra).collect()
    }
}

/// A frame that looks for objects, and the layout of what it finds.
fn frame(gpu: &Gpu, case: &Case, head: DetectHead, plan: &Plan) -> (Layout, Frame) {
    let (layout, finder) =
        gpu::finder(&NetworkHead::Detect(head), case.branches(), plan, gpu.max_words()).expect("a finder");
    let stages = Stages { found: finder.jobs, ..Stages::default() };
    let program = Program::of_stages(
        gpu,
        stages,
        plan.arena_len,
        Upload::alike(0..plan.arena_len),
        std::iter::once(0..plan.arena_len).collect(),
        finder.layout,
    );
    let weights = gpu.weights_buffer(&[]).expect("memory");
    let frame = Frame::new(gpu, Arc::new(program.expect("a program")), &weights, None).expect("a frame");
    (layout, frame)
}

/// What a device finds, and how many words were read with the run and after it.
fn find(gpu: &Gpu, case: &Case, head: DetectHead, plan: &Plan, values: &[f32]) -> (Found, [usize; 2]) {
    let (layout, mut frame) = frame(gpu, case, head, plan);
    let run = |frame: &mut Frame| {
        let parameters = layout.parameters(&case.filter());
        frame.start(gpu, Input::Values(values), Wanted::Found(&parameters)).expect("a run");
        frame.finish(gpu).expect("an end");
        let mut words = Vec::new();
        frame.read_found(gpu, &mut words).expect("words");
        let n_first = words.len();
        let n_used = layout.n_used(&words).max(n_first);
        frame.fetch_found(gpu, n_first..n_used, &mut words).expect("further words");
        (Found::new(layout, words), [n_first, n_used])
    };
    let first = run(&mut frame);
    let second = run(&mut frame);
    let rows = |(found, _): &(Found, [usize; 2])| -> Vec<Vec<u32>> {
        let row_words = found.layout.row_words();
        // Objectness is left as it is where there is none.
        let row = |&row: &usize| {
            let mut words = found.words[row..][..row_words].to_vec();
            words[super::OBJECTNESS] = 0;
            words
        };
        found.rows.iter().map(row).collect()
    };
    let found = rows(&first);
    assert_eq!(found, rows(&second), "{case:?}: another run finds something else");
    // A cell is there once, or once for each class of a branch that needs no suppression.
    let place = |row: &Vec<u32>| (row[super::CELL], if layout.k.is_some() { row[super::CLASS] } else { 0 });
    assert!(found.windows(2).all(|rows| place(&rows[0]) < place(&rows[1])), "{case:?}: {found:?}");
    let least = layout.parameters(&case.filter())[super::LEAST];
    let passes = |row: &Vec<u32>| key(f32::from_bits(row[super::LOGIT])) >= least;
    assert!(found.iter().all(passes), "{case:?}: {found:?}");
    second
}

/// Whether two values are the same, or both not a number.
fn same(a: f32, b: f32) -> bool {
    a == b || a.is_nan() && b.is_nan()
}

/// Compares device and CPU; returns the objects of all images.
fn check(gpu: &Gpu, case: &Case) -> usize {
    let (head, plan, values) = case.build();
    let values = gpu.rounded(&values);
    let mut arena = Arena::new(values.len()).expect("memory");
    arena.as_mut_slice().copy_from_slice(&values);
    let (found, _) = find(gpu, case, head.clone(), &plan, &values);
    let branch = head.one2one.as_ref().unwrap_or(&head.one2many);
    let decoder = Decoder::new(&head, branch, &plan).expect("a decoder");
    let mut n_objects = 0;
    for image in 0..case.n_images {
        let mut want = case.on_cpu(&decoder, &arena, image);
        let mut got = case.on_gpu(&decoder, &found, image);
        if case.max_det.is_some() {
            // Boxes of the CPU that don't pass are left out, and those of the device that just fail to.
            for all in [&mut want, &mut got] {
                all.retain(|(found, _)| case.filter().passes(found));
            }
        }
        n_objects += want.len();
        let place = |found: &[(Candidate, Vec<f32>)]| -> Vec<_> {
            found.iter().map(|(found, _)| (found.anchor, found.class, found.score.to_bits())).collect()
        };
        assert_eq!(place(&got), place(&want), "{case:?}: image {image}");
        for ((got, got_extra), (want, want_extra)) in got.iter().zip(&want) {
            for (g, w) in got.xyxy.iter().zip(&want.xyxy) {
                let is_near = same(*g, *w) || (g - w).abs() <= CORNER_TOLERANCE * w.abs().max(64.0);
                assert!(is_near, "{case:?}: image {image}: got {got:?}, expected {want:?}");
            }
            let alike = got_extra.iter().zip(want_extra).all(|(g, w)| same(*g, *w));
            assert!(alike && got_extra.len() == want_extra.len(), "{case:?}: {got_extra:?}, {want_extra:?}");
        }
    }
    n_objects
}

#[test]
fn every_kind_of_head_is_read() {
    for element in [Element::F32, Element::F16] {
        let Some(gpu) = for_tests(element) else { return };
        let levels = vec![[8, 12], [4, 6], [2, 3]];
        let mut n_objects = 0;
        for max_det in [None, Some(40)] {
            for regression in [
                Regression::Distances { reg_max: 16 },
                Regression::Distances { reg_max: 17 },
                Regression::Distances { reg_max: 1 },
                Regression::CenterSize,
            ] {
                let extras = [
                    Extra::None,
                    Extra::Masks { n: 32, proto: ValueId(0) },
                    Extra::Keypoints { n: 17, values: 3, centered: false },
                    Extra::Keypoints { n: 5, values: 2, centered: true },
                    Extra::Angle { raw: true },
                    Extra::Angle { raw: false },
                ];
                for extra in extras {
                    let levels = levels.clone();
                    let case = Case { levels, n_classes: 3, n_images: 2, regression, extra, max_det, ..CASE };
                    n_objects += check(&gpu, &case);
                    n_objects += check(&gpu, &Case { is_padded: true, ..case });
                }
            }
        }
        assert!(n_objects > 1000, "found only {n_objects}");
    }
}

#[test]
fn more_than_is_read_at_first_is_fetched() {
    let Some(gpu) = for_tests(Element::F32) else { return };
    let case = Case { levels: vec![[64, 64]], n_classes: 4, conf: 0.0, ..CASE };
    let (head, plan, values) = case.build();
    let (found, [n_first, n_used]) = find(&gpu, &case, head, &plan, &values);
    assert_eq!(found.rows.len(), 4096);
    assert!(n_used > n_first, "{n_used} words in all, {n_first} at first");
    assert_eq!(check(&gpu, &case), 4096);
}

#[test]
fn the_largest_heads_are_read() {
    let Some(gpu) = for_tests(Element::F32) else { return };
    for max_det in [None, Some(5)] {
        let case = Case { levels: vec![[2, 3]], max_det, ..CASE };
        let n_objects = check(&gpu, &Case { n_classes: 65_536, conf: 0.9, ..case.clone() });
        assert!(n_objects >= 5, "{n_objects} of many classes");
        // A row has more words than are read with the run.
        let extra = Extra::Keypoints { n: 4096, values: 3, centered: false };
        let n_objects = check(&gpu, &Case { n_classes: 2, conf: 0.0, extra, ..case.clone() });
        assert!(n_objects >= 5, "{n_objects} of many points");
        let n_objects = check(&gpu, &Case { n_classes: 3, n_images: 70, ..case });
        assert!(n_objects >= 70, "{n_objects} in many pictures");
    }
}

#[test]
fn what_a_device_can_not_choose_is_left_to_the_cpu() {
    let finder = |max_det, n_classes, max_words| {
        let case = Case { levels: vec![[40, 40]], n_classes, max_det, ..CASE };
        let (head, plan, _) = case.build();
        gpu::finder(&NetworkHead::Detect(head), case.branches(), &plan, max_words).is_some()
    };
    assert!(finder(Some(300), 80, 1 << 25) && finder(Some(1024), 1024, 1 << 25));
    assert!(finder(None, 1000, 1 << 25));
    assert!(!finder(Some(1025), 1, 1 << 25) && !finder(Some(0), 1, 1 << 25));
    assert!(!finder(Some(1024), 1025, 1 << 25));
    assert!(!finder(None, 80, 1600 * 8));
    // More than there are cells is as many as there are.
    let case = Case { levels: vec![[4, 4]], max_det: Some(100_000), ..CASE };
    let (head, plan, _) = case.build();
    let both = Branches { one2many: true, one2one: true };
    let head = NetworkHead::Detect(head);
    assert!(gpu::finder(&head, case.branches(), &plan, 1 << 25).is_some());
    assert!(gpu::finder(&head, both, &plan, 1 << 25).is_none());
}

#[test]
fn what_shaders_can_not_number_is_left_to_the_cpu() {
    for max_det in [None, Some(256)] {
        let extra = Extra::Keypoints { n: 4096, values: 3, centered: false };
        let case = Case { levels: vec![[16, 16]], n_classes: 1, extra, max_det, ..CASE };
        let finder = |change: fn(&mut Plan)| {
            let (head, mut plan, _) = case.build();
            change(&mut plan);
            gpu::finder(&NetworkHead::Detect(head), case.branches(), &plan, 1 << 30).is_some()
        };
        assert!(finder(|_| ()));
        // Rows of more words than there are numbers.
        assert!(!finder(|plan| plan.views.iter_mut().flatten().for_each(|view| view.n = 4096)));
        // Maps at places that have no number.
        assert!(!finder(|plan| {
            plan.arena_len += 1 << 32;
            plan.views.iter_mut().flatten().for_each(|view| view.offset += 1 << 32);
        }));
    }
}

#[test]
fn a_frame_gives_maps_and_objects_by_turns() {
    let Some(gpu) = for_tests(Element::F32) else { return };
    // Maps of more bytes than the host keeps room for.
    let case = Case { levels: vec![[64, 64]], n_images: 2, conf: 0.9, ..CASE };
    let (head, plan, values) = case.build();
    assert!(4 * values.len() > 4 << 20);
    let (layout, mut frame) = frame(&gpu, &case, head, &plan);
    let parameters = layout.parameters(&case.filter());
    for _ in 0..2 {
        frame.start(&gpu, Input::Values(&values), Wanted::Found(&parameters)).expect("a run");
        frame.finish(&gpu).expect("an end");
        let mut words = Vec::new();
        frame.read_found(&gpu, &mut words).expect("words");
        assert!(words[layout.counter()] > 0);
        let mut got = vec![0.0; values.len()];
        frame.start(&gpu, Input::Values(&values), Wanted::Values).expect("a run");
        frame.finish(&gpu).expect("an end");
        frame.read_values(&gpu, &mut got).expect("maps");
        assert!(got == values);
    }
}

#[test]
fn little_is_read_of_a_usual_picture() {
    let case = Case { levels: vec![[80, 80], [40, 40], [20, 20]], ..CASE };
    for max_det in [None, Some(300)] {
        for n in [0, 1, 17, 32, 51] {
            let extra = Extra::Masks { n, proto: ValueId(0) };
            let (head, ..) = Case { extra, max_det, ..case.clone() }.build();
            let layout = Layout::new(&head, max_det.is_some(), 1, 8400).expect("a layout");
            assert!(4 * layout.n_first() <= 50 << 10, "{layout:?}: {} words", layout.n_first());
            assert!(layout.n_first() >= layout.n_parameters() + 200 * layout.row_words(), "{layout:?}");
        }
    }
}

#[test]
fn keys_grow_with_logits() {
    let all = [f32::NEG_INFINITY, -1e30, -1.0, -1e-40, 0.0, 1e-40, 0.5, 3.0, f32::INFINITY];
    assert!(all.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    assert_eq!(key(-0.0), key(0.0));
    assert_eq!(key(f32::NAN), key(f32::NEG_INFINITY));
    assert_eq!(key(-f32::NAN), key(f32::NEG_INFINITY));
    assert!(key(f32::NEG_INFINITY) > 0);
}

fn any_case() -> impl Strategy<Value = Case> {
    let regression = prop::sample::select(vec![
        Regression::Distances { reg_max: 16 },
        Regression::Distances { reg_max: 4 },
        Regression::Distances { reg_max: 1 },
        Regression::CenterSize,
    ]);
    let extra = prop::sample::select(vec![
        Extra::None,
        Extra::Masks { n: 6, proto: ValueId(0) },
        Extra::Keypoints { n: 3, values: 3, centered: true },
        Extra::Angle { raw: false },
    ]);
    let max_det = prop::option::of(prop::sample::select(vec![1usize, 5, 30, 300]));
    let conf = prop::sample::select(vec![0.0f32, 0.001, 0.25, 0.9, 1.0]);
    let classes = prop::option::of(prop::collection::vec(0usize..100, 1..20));
    let steps = prop::sample::select(vec![0.25f32, 1.0, 1000.0]);
    let odd = prop::option::of(prop::sample::select(vec![2u64, 7, 50]));
    let levels = prop::collection::vec(prop::array::uniform2(1usize..13), 1..4);
    let head = (regression, extra, max_det, 1usize..101);
    let maps = (levels, 1usize..4, any::<bool>());
    (head, maps, (conf, classes), (steps, odd, any::<u64>())).prop_map(|(head, maps, filter, values)| {
        let (regression, extra, max_det, n_classes) = head;
        let (levels, n_images, is_padded) = maps;
        let (conf, classes) = filter;
        let (steps, odd, seed) = values;
        let classes = classes.map(|all| all.into_iter().map(|class| class % n_classes).collect());
        let case = Case { regression, extra, max_det, n_classes, levels, n_images, is_padded, ..CASE };
        Case { conf, classes, steps, odd, seed, ..case }
    })
}

#[test]
fn any_head_is_read_as_on_the_cpu() {
    for element in [Element::F32, Element::F16] {
        let Some(gpu) = for_tests(element) else { return };
        let mut runner = TestRunner::new(cases(80));
        let checked = runner.run(&any_case(), |case| {
            check(&gpu, &case);
            Ok(())
        });
        checked.unwrap_or_else(|failure| panic!("{element:?}: {failure}"));
    }
}
