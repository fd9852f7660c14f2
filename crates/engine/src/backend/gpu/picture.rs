//! Pictures as `letterbox.wgsl` reads them: headers, then of each picture tables and samples.

use ferroyolo_kernels::View;
use ferroyolo_shaders::{LETTERBOX, Lanes};

use super::device::Gpu;
use super::job::{Job, THREADS, job_struct, lanes_for, word};
use crate::image::{Color, Image, InputSpec, Letterbox};

job_struct! {
    /// `Job` of `letterbox.wgsl`.
    LetterboxJob { first_workgroup, image, pixels, row_pixels, output, output_stride }
}

/// Words of a picture's header.
const HEADER_WORDS: usize = 8;

/// Words of the table of an 8-bit sample's values, of a row, and of a column.
const VALUE_WORDS: usize = 256;
const ROW_WORDS: usize = 3;
const COLUMN_WORDS: usize = 2;

/// A shader may look at the pixel behind the last one, which then has no weight.
const BEYOND: usize = 8;

/// A picture on its way to a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picture<'a> {
    pub image: &'a Image,
    pub letterbox: &'a Letterbox,
    pub input: &'a InputSpec,
}

/// Jobs that write the pictures of a batch to `input`.
pub(super) fn jobs(input: &View) -> Vec<Job> {
    // The fourth channel of a pixel is written where there is room for one.
    let whole = View { c: input.c.next_multiple_of(4), ..*input };
    let (lanes, overrides) =
        if input.pixel_stride < whole.c { (Lanes::One, Vec::new()) } else { lanes_for(&[whole]) };
    let job = |image: usize| Job {
        shader: LETTERBOX,
        overrides: overrides.clone(),
        lanes,
        workgroups: input.pixels().div_ceil(THREADS),
        workgroup_bytes: 0,
        words: LetterboxJob {
            first_workgroup: 0,
            image: word(image),
            pixels: word(input.pixels()),
            row_pixels: word(input.w),
            output: word(input.offset + image * input.image_stride),
            output_stride: word(input.pixel_stride),
        }
        .words(),
        weights: None,
        product: None,
    };
    (0..input.n).map(job).collect()
}

/// Bytes that the pictures of a batch take, if that is a number.
pub(super) fn bytes(pictures: &[Picture<'_>]) -> Option<usize> {
    let mut bytes = pictures.len().checked_mul(4 * HEADER_WORDS)?;
    for picture in pictures {
        bytes = bytes.checked_add(picture.tables_bytes())?.checked_add(picture.samples_bytes()?)?;
    }
    Some(bytes)
}

/// Whether the shader can scale all pictures of a batch: it reaches them, and their channels keep their order.
pub(crate) fn fit(gpu: &Gpu, pictures: &[Picture<'_>]) -> bool {
    if pictures.iter().any(|picture| picture.input.color != Color::Rgb) {
        return false;
    }
    let limit = gpu.max_binding_bytes().min(gpu.device.limits().max_buffer_size);
    bytes(pictures).is_some_and(|bytes| bytes as u64 <= limit)
}

/// Writes the pictures of a batch by `put(place, bytes)`, not always in order.
pub(super) fn write(pictures: &[Picture<'_>], mut put: impl FnMut(usize, &[u8])) {
    let mut place = pictures.len() * 4 * HEADER_WORDS;
    let mut tables: Vec<u32> = Vec::new();
    for (idx, picture) in pictures.iter().enumerate() {
        let samples = place + picture.tables_bytes();
        tables.clear();
        let header = picture.tables(place, samples, &mut tables);
        put(idx * 4 * HEADER_WORDS, bytemuck::cast_slice(&header));
        put(place, bytemuck::cast_slice(&tables));
        place = samples + picture.write_samples(samples, &mut put);
    }
}

impl Picture<'_> {
    /// Whether so many rows are left out in scaling that it pays to send only those that count, two for each result.
    fn is_sparse(&self) -> bool {
        self.image.height() > 2 * self.letterbox.scaled_hw()[0]
    }

    fn row_bytes(&self) -> usize {
        3 * self.image.width()
    }

    fn tables_bytes(&self) -> usize {
        let [h, w] = self.letterbox.scaled_hw();
        4 * (VALUE_WORDS + ROW_WORDS * h + COLUMN_WORDS * w)
    }

    fn samples_bytes(&self) -> Option<usize> {
        let rows = if self.is_sparse() { 2 * self.letterbox.scaled_hw()[0] } else { self.image.height() };
        rows.checked_mul(self.row_bytes())?.checked_add(BEYOND)?.checked_next_multiple_of(4)
    }

    /// The header, and by way of `tables` what lies at the byte `place`. Samples begin at the byte `samples`.
    fn tables(&self, place: usize, samples: usize, tables: &mut Vec<u32>) -> [u32; HEADER_WORDS] {
        let ([top, left], [h, w]) = (self.letterbox.top_left(), self.letterbox.scaled_hw());
        let pair = |[first, second]: [i16; 2]| (second as u32 & 0xffff) << 16 | (first as u32 & 0xffff);
        tables.extend((0..=u8::MAX).map(|value| (f32::from(value) / self.input.divisor).to_bits()));
        for (y, (sources, weights)) in self.letterbox.rows().enumerate() {
            let sources = if self.is_sparse() { [2 * y, 2 * y + 1] } else { sources };
            tables.extend(sources.map(|row| word(samples + row * self.row_bytes())));
            tables.push(pair(weights));
        }
        for (left, weights) in self.letterbox.columns() {
            tables.extend([word(3 * left), pair(weights)]);
        }
        let rows = place / 4 + VALUE_WORDS;
        let columns = rows + ROW_WORDS * h;
        let pad = usize::from(self.input.pad_value);
        [top, left, h, w, pad, rows, columns, place / 4].map(word)
    }

    /// Writes the samples that count, from the byte `place` on, and returns how many bytes they take.
    fn write_samples(&self, place: usize, put: &mut impl FnMut(usize, &[u8])) -> usize {
        let pixels = self.image.pixels();
        let row_bytes = self.row_bytes();
        let mut end = 0;
        if self.is_sparse() {
            for row in self.letterbox.rows().flat_map(|(sources, _)| sources) {
                put(place + end, &pixels[row * row_bytes..][..row_bytes]);
                end += row_bytes;
            }
        } else {
            put(place, pixels);
            end = pixels.len();
        }
        (end + BEYOND).next_multiple_of(4)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use ferroyolo_shaders::Element;
    use proptest::prelude::*;

    use super::*;
    use crate::backend::gpu::{FoundLayout, Frame, Input, Program, Stages, Upload, Wanted, for_tests};
    use crate::image::{LetterboxScratch, Placement};
    use crate::testing::cases;

    fn device() -> Option<&'static Gpu> {
        static DEVICE: OnceLock<Option<Gpu>> = OnceLock::new();
        DEVICE.get_or_init(|| for_tests(Element::F32)).as_ref()
    }

    /// A picture of noise.
    fn noise([height, width]: [usize; 2], mut state: u32) -> Image {
        let mut next = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            (state >> 16) as u8
        };
        Image::from_rgb8(width, height, (0..3 * width * height).map(|_| next()).collect()).expect("a picture")
    }

    /// What the device makes of pictures, and what the host makes of them. `pixel_stride`: 3 or 4 elements.
    fn both(gpu: &Gpu, image_hws: &[[usize; 2]], net_hw: [usize; 2], pixel_stride: usize) -> [Vec<f32>; 2] {
        let spec = InputSpec::default();
        let images: Vec<Image> = (7..).zip(image_hws).map(|(seed, &hw)| noise(hw, seed)).collect();
        let place = [Placement::Center, Placement::TopLeft];
        let letterboxes: Vec<Letterbox> = (0..)
            .zip(image_hws)
            .map(|(idx, &hw)| Letterbox::new(hw, net_hw, place[idx % 2]).expect("sizes"))
            .collect();
        let [h, w] = net_hw;
        let image_stride = h * w * pixel_stride;
        let input = View {
            pixel_stride,
            row_stride: w * pixel_stride,
            image_stride,
            ..View::buffer(16, images.len(), h, w, 3, 0)
        };
        let end = (16 + images.len() * image_stride).next_multiple_of(16);
        let stages =
            Stages { input: jobs(&input).into_iter().map(|job| (1, job)).collect(), ..Stages::default() };
        let outputs = std::iter::once(0..end).collect();
        let program =
            Program::of_stages(gpu, stages, end, Upload::alike(0..end), outputs, FoundLayout::default());
        let weights = gpu.weights_buffer(&[0.0; 4]).expect("memory");
        let mut frame =
            Frame::new(gpu, Arc::new(program.expect("a program")), &weights, None).expect("a frame");

        let pictures: Vec<Picture<'_>> = images
            .iter()
            .zip(&letterboxes)
            .map(|(image, letterbox)| Picture { image, letterbox, input: &spec })
            .collect();
        let mut got = vec![0.0; end];
        frame.start(gpu, Input::Pictures(&pictures), Wanted::Values).expect("a run");
        frame.finish(gpu).expect("an end");
        frame.read_values(gpu, &mut got).expect("values");

        let mut want = vec![0.0; end];
        let mut scratch = LetterboxScratch::default();
        for (idx, picture) in pictures.iter().enumerate() {
            let mut rows = vec![0.0; h * w * 3];
            picture.letterbox.write(picture.image, &spec, &mut rows, w * 3, &mut scratch).expect("rows");
            for (pixel, color) in rows.as_chunks::<3>().0.iter().enumerate() {
                want[input.offset + idx * image_stride + pixel * pixel_stride..][..3].copy_from_slice(color);
            }
        }
        [got, want]
    }

    #[test]
    fn pictures_are_scaled_to_the_bit() {
        let Some(gpu) = device() else { return };
        for hw in [[1, 1], [1, 9], [33, 1], [32, 64], [64, 32], [5, 300], [65, 64], [129, 40], [7, 3]] {
            for pixel_stride in [3, 4] {
                let [got, want] = both(gpu, &[hw], [32, 64], pixel_stride);
                assert!(got == want, "{hw:?} with stride {pixel_stride}");
            }
        }
    }

    #[test]
    fn what_the_shader_does_not_do_is_left_to_the_host() {
        let Some(gpu) = device() else { return };
        let image = noise([4, 5], 1);
        let letterbox = Letterbox::new([4, 5], [32, 32], Placement::Center).expect("sizes");
        for color in [Color::Rgb, Color::Bgr] {
            let input = &InputSpec { color, ..InputSpec::default() };
            let picture = Picture { image: &image, letterbox: &letterbox, input };
            assert_eq!(fit(gpu, &[picture]), color == Color::Rgb, "{color:?}");
        }
    }

    #[test]
    fn each_picture_of_a_large_batch_has_its_place() {
        let Some(gpu) = device() else { return };
        let image_hws: Vec<_> = (1..38).map(|side| [side, 38 - side]).collect();
        let [got, want] = both(gpu, &image_hws, [9, 8], 4);
        assert!(got == want);
    }

    proptest! {
        #![proptest_config(cases(24))]

        #[test]
        fn batches_of_any_sizes_are_scaled_to_the_bit(
            image_hws in prop::collection::vec(prop::array::uniform2(1usize..150), 1..4),
            net_hw in prop::array::uniform2(1usize..70),
            has_fourth: bool,
        ) {
            if let Some(gpu) = device() {
                let [got, want] = both(gpu, &image_hws, net_hw, if has_fourth { 4 } else { 3 });
                prop_assert!(got == want);
            }
        }
    }
}
