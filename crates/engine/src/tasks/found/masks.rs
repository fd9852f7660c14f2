//! Masks on a graphics processor: what `masks.wgsl` has to know of each object, and what it gives.

use ferroyolo_kernels::View;
use ferroyolo_shaders::MASKS;

use crate::backend::gpu::{Errand, Job, THREADS, job_struct, lanes_for, word};
use crate::error::Result;
use crate::results::Mask;
use crate::tasks::segment::{Area, Way};

job_struct! {
    /// `Job` of `masks.wgsl`.
    MasksJob { first_workgroup, image_pixels, row_pixels, channels, input, input_stride }
}

/// Prototypes that a mask can be mixed from.
pub(crate) const MAX_CHANNELS: usize = 256;

/// Words of an object's header, and of a row or column.
const HEADER_WORDS: usize = 8;
const TAP_WORDS: usize = 4;

/// Pixels of a word.
const BITS: usize = 32;

/// Words of masks that are computed together with what is told of them, unless a single one has more.
const MAX_WORDS: usize = 1 << 20;

/// The work that computes masks from these prototypes. How many workgroups it takes depends on the objects.
pub(crate) fn job(prototypes: &View) -> Job {
    let job = MasksJob {
        first_workgroup: 0,
        image_pixels: word(prototypes.pixels()),
        row_pixels: word(prototypes.w),
        channels: word(prototypes.c),
        input: word(prototypes.offset),
        input_stride: word(prototypes.pixel_stride),
    };
    let (lanes, overrides) = lanes_for(&[*prototypes]);
    Job {
        shader: MASKS,
        overrides,
        lanes,
        workgroups: 1,
        workgroup_bytes: 0,
        words: job.words(),
        weights: None,
        product: None,
    }
}

/// Words that the largest mask of a frame of `[height, width]` pixels takes, with all that is told of it.
pub(crate) fn max_words([height, width]: [usize; 2]) -> usize {
    let rows = height.saturating_mul(width.div_ceil(BITS));
    let taps = height.saturating_add(width).saturating_mul(TAP_WORDS);
    rows.saturating_add(taps).saturating_add(1 + HEADER_WORDS + MAX_CHANNELS)
}

/// Computes the masks of one image's objects by errands to the device; `None` for those without a pixel.
///
/// An object has its pixels, if there are any, and its coefficients.
pub(in crate::tasks) fn masks(
    image: usize,
    objects: &[(Option<Area>, Vec<f32>)],
    run: &dyn Fn(&Errand) -> Result<Vec<u32>>,
) -> Result<Vec<Option<Mask>>> {
    masks_by(MAX_WORDS, image, objects, run)
}

/// As [`masks`], with errands of so many words, or of one object.
fn masks_by(
    max_words: usize,
    image: usize,
    objects: &[(Option<Area>, Vec<f32>)],
    run: &dyn Fn(&Errand) -> Result<Vec<u32>>,
) -> Result<Vec<Option<Mask>>> {
    // What is not a number is positive nowhere.
    let is_visible = |coefficients: &[f32]| coefficients.iter().all(|value| value.is_finite());
    let visible = objects.iter().enumerate().filter_map(|(idx, (area, coefficients))| {
        let area = area.as_ref().filter(|_| is_visible(coefficients))?;
        Some(Object { idx, area, coefficients })
    });
    let visible: Vec<Object<'_>> = visible.collect();
    let mut masks = vec![None; objects.len()];
    let mut rest = &visible[..];
    while !rest.is_empty() {
        let mut n_words = 0;
        let fits = |object: &&Object<'_>| {
            n_words += object.n_words() + object.n_told();
            n_words <= max_words
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(n);
        let words = run(&errand(image, now))?;
        let mut at = 0;
        for object in now {
            masks[object.idx] = object.mask(&words[at..at + object.n_words()])?;
            at += object.n_words();
        }
        rest = later;
    }
    Ok(masks)
}

/// An object with pixels.
struct Object<'a> {
    /// Its place among all objects.
    idx: usize,
    area: &'a Area,
    coefficients: &'a [f32],
}

impl Object<'_> {
    fn row_words(&self) -> usize {
        self.area.xs.len().div_ceil(BITS)
    }

    fn n_words(&self) -> usize {
        self.area.ys.len() * self.row_words()
    }

    /// Words that the device is told of it.
    fn n_told(&self) -> usize {
        let taps = self.area.ys.len() + self.area.xs.len();
        HEADER_WORDS + self.coefficients.len().next_multiple_of(4) + taps * TAP_WORDS
    }

    /// The mask of these words, if any pixel is on.
    fn mask(&self, words: &[u32]) -> Result<Option<Mask>> {
        if words.iter().all(|&word| word == 0) {
            return Ok(None);
        }
        let Area { ys, xs, .. } = self.area;
        let mut pixels = Vec::with_capacity(ys.len() * xs.len());
        for row in words.chunks_exact(self.row_words()) {
            let bit = |x: usize| (row[x / BITS] >> (x % BITS) & 1) as u8;
            pixels.extend((0..xs.len()).map(bit));
        }
        Mask::new([xs.start, ys.start], xs.len(), pixels).map(Some)
    }
}

/// What the device is told, as `masks.wgsl` reads it.
fn errand(image: usize, objects: &[Object<'_>]) -> Errand {
    let mut words = vec![0; 1 + objects.len() * HEADER_WORDS];
    words[0] = word(objects.len());
    let (mut n_workgroups, mut n_pixel_words) = (0, 0);
    for (idx, object) in objects.iter().enumerate() {
        let coefficients = words.len();
        words.extend(object.coefficients.iter().map(|value| value.to_bits()));
        words.resize(coefficients + object.coefficients.len().next_multiple_of(4), 0);
        let mut table = |way: &Way| {
            let place = words.len();
            for (first, shares) in way.taps() {
                words.push(word(first));
                words.extend(shares.map(f32::to_bits));
            }
            place
        };
        let (rows, columns) = (table(&object.area.rows), table(&object.area.columns));
        let header = [
            n_workgroups,
            image,
            object.area.xs.len(),
            object.n_words(),
            coefficients,
            rows,
            columns,
            n_pixel_words,
        ];
        let place = 1 + idx * HEADER_WORDS;
        words[place..place + HEADER_WORDS].copy_from_slice(&header.map(word));
        n_workgroups += object.n_words().div_ceil(THREADS);
        n_pixel_words += object.n_words();
    }
    // Masks come behind all that is told.
    let first = word(words.len());
    for idx in 0..objects.len() {
        words[idx * HEADER_WORDS + HEADER_WORDS] += first;
    }
    Errand { words, n_workgroups, n_results: n_pixel_words }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    use ferroyolo_shaders::Element;

    use super::*;
    use crate::backend::gpu::{FoundLayout, Frame, Program, Stages, Upload, for_tests};
    use crate::image::{Letterbox, Placement};
    use crate::tasks::scale::MapView;
    use crate::tasks::segment::{MaskScratch, MaskSize};

    /// Pixels whose logit is nearer to zero may differ.
    const TOLERANCE: f32 = 1e-4;

    const PROTO_HW: [usize; 2] = [10, 12];
    const N_IMAGES: usize = 2;

    /// Numbers from -1 to 1 that depend on the state only.
    fn noise(state: &mut u64) -> f32 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A device's masks lie between those that the CPU makes of slightly smaller and of slightly larger logits.
    fn check(element: Element, channels: usize, stride: usize, max_words: usize) {
        let Some(gpu) = for_tests(element) else { return };
        let state = &mut 7u64;
        let view = View::buffer(16, N_IMAGES, PROTO_HW[0], PROTO_HW[1], stride, 0).channels(0, channels);
        let mut values: Vec<f32> = (0..16 + N_IMAGES * view.image_stride).map(|_| noise(state)).collect();
        // The first prototype is the same everywhere, so that its coefficient moves all logits.
        values.iter_mut().skip(16).step_by(stride).for_each(|value| *value = 1.0);
        let mut values = gpu.rounded(&values);
        let stages = Stages { errand: Some(job(&view)), ..Stages::default() };
        let upload = Upload::alike(0..values.len());
        let program =
            Program::of_stages(&gpu, stages, values.len(), upload, Vec::new(), FoundLayout::default());
        let weights = gpu.weights_buffer(&[]).expect("memory");
        let mut frame =
            Frame::new(&gpu, Arc::new(program.expect("a program")), &weights, None).expect("a frame");
        frame.run(&gpu, &mut values).expect("a run");
        let (frame, n_errands) = (RefCell::new(frame), Cell::new(0));
        let run = |errand: &Errand| {
            n_errands.set(n_errands.get() + 1);
            frame.borrow_mut().run_errand(&gpu, errand)
        };

        let (mut n_masks, mut n_pixels) = (0, 0);
        let sizes =
            [[40, 48], [30, 45], [80, 96], [100, 31], [23, 90], [1, 5], [400, 300], [3, 2000], [900, 1]];
        for image_hw in sizes {
            let letterbox =
                Letterbox::new(image_hw, PROTO_HW.map(|side| 4 * side), Placement::Center).expect("a size");
            for (image, size) in
                (0..N_IMAGES).flat_map(|image| [MaskSize::Input, MaskSize::Picture].map(|size| (image, size)))
            {
                let frame_hw = if size == MaskSize::Input { letterbox.net_hw() } else { image_hw };
                let mut objects: Vec<([f32; 4], Vec<f32>)> = Vec::new();
                for idx in 0..9 {
                    let coefficients = (0..channels).map(|_| noise(state)).collect();
                    let [height, width] = frame_hw.map(|side| side as f32);
                    let corner = |state: &mut u64, side: f32| (noise(state) + 0.5) * side;
                    let xyxy = match idx {
                        0 => [-5.0, -5.0, 1e4, 1e4],
                        1 => [3.0, 3.0, 3.0, 9.0],
                        _ => [corner(state, width), corner(state, height), 0.7 * width, 0.9 * height],
                    };
                    objects.push((xyxy, coefficients));
                }
                objects[2].1[1] = f32::NAN;
                let mut scratch = MaskScratch::default();
                let areas: Vec<_> = objects
                    .iter()
                    .map(|(xyxy, coefficients)| {
                        let area = scratch.area(PROTO_HW, *xyxy, &letterbox, size).expect("little memory");
                        (area, coefficients.clone())
                    })
                    .collect();
                let got = masks_by(max_words, image, &areas, &run).expect("masks");
                let prototypes = MapView {
                    data: &values[view.index(image, 0, 0)..],
                    hw: PROTO_HW,
                    channels,
                    pixel_stride: view.pixel_stride,
                    row_stride: view.row_stride,
                };
                for ((xyxy, coefficients), got) in objects.iter().zip(&got) {
                    let [least, most] = [-TOLERANCE, TOLERANCE].map(|more| {
                        let mut coefficients = coefficients.clone();
                        coefficients[0] += more;
                        scratch.mask(&prototypes, &coefficients, *xyxy, &letterbox, size).expect("a mask")
                    });
                    let is_on =
                        |mask: &Option<Mask>, x, y| mask.as_ref().is_some_and(|mask| mask.contains(x, y));
                    for (y, x) in (0..frame_hw[0]).flat_map(|y| (0..frame_hw[1]).map(move |x| (y, x))) {
                        let [least, got, most] = [&least, got, &most].map(|mask| is_on(mask, x, y));
                        assert!(
                            least <= got && got <= most,
                            "{element:?}, {image_hw:?}, {size:?}, {xyxy:?}: {x}, {y}: got {got}"
                        );
                        n_pixels += usize::from(got);
                    }
                    n_masks += usize::from(got.is_some());
                }
                assert!(got[1].is_none() && got[2].is_none());
            }
        }
        assert!(n_masks > 80 && n_pixels > 10_000, "{n_masks} masks of {n_pixels} pixels");
        let n_calls = 18 * N_IMAGES;
        assert!(if max_words < 100 { n_errands.get() > n_calls } else { n_errands.get() <= n_calls });
    }

    #[test]
    fn masks_are_those_of_the_cpu() {
        check(Element::F32, 32, 32, MAX_WORDS);
        check(Element::F32, 11, 11, MAX_WORDS);
        check(Element::F32, 6, 8, 50);
        check(Element::F16, 32, 36, MAX_WORDS);
        check(Element::F16, 5, 7, 50);
    }

    #[test]
    fn errands_are_no_larger_than_they_may_be() {
        const MAX: usize = 50_000;
        let image_hw = [40, 4000];
        let letterbox = Letterbox::new(image_hw, [64, 640], Placement::Center).expect("a size");
        let mut scratch = MaskScratch::default();
        // Wide ones, of which more is told than there are pixels.
        let objects: Vec<_> = (0..9)
            .map(|_| {
                let xyxy = [0.0, 7.0, 4000.0, 9.0];
                let area = scratch.area([16, 160], xyxy, &letterbox, MaskSize::Picture).expect("a size");
                (area, vec![0.5; 32])
            })
            .collect();
        let sizes = RefCell::new(Vec::new());
        let run = |errand: &Errand| {
            sizes.borrow_mut().push(errand.words.len() + errand.n_results);
            Ok(vec![1; errand.n_results])
        };
        let masks = masks_by(MAX, 0, &objects, &run).expect("masks");
        assert!(masks.iter().all(Option::is_some));
        let sizes = sizes.into_inner();
        assert_eq!(sizes.len(), 3);
        assert!(sizes.iter().all(|&size| size <= 1 + MAX), "{sizes:?}");
    }

    #[test]
    fn a_frame_has_room_for_its_largest_mask() {
        let letterbox = Letterbox::new([333, 500], [640, 640], Placement::Center).expect("a size");
        let mut scratch = MaskScratch::default();
        for (size, hw) in [(MaskSize::Input, [640, 640]), (MaskSize::Picture, [333, 500])] {
            let area = scratch.area([160, 160], [0.0, 0.0, 1e4, 1e4], &letterbox, size).expect("a size");
            let area = area.expect("pixels");
            let coefficients = [0.5; MAX_CHANNELS];
            let Errand { words, n_results, .. } =
                errand(0, &[Object { idx: 0, area: &area, coefficients: &coefficients }]);
            assert_eq!(words.len() + n_results, max_words(hw));
        }
        assert_eq!(max_words([usize::MAX, 3]), usize::MAX);
    }
}
