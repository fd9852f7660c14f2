//! Windows on an arena.

/// A window on NHWC activations in an arena; offset and strides are counted in `f32` elements.
///
/// Channel `c` of pixel `(y, x)` of image `i` is element
/// `offset + i * image_stride + y * row_stride + x * pixel_stride + c`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// The first channel of pixel (0, 0) of image 0.
    pub offset: usize,
    /// Images.
    pub n: usize,
    /// Rows of an image.
    pub h: usize,
    /// Pixels of a row.
    pub w: usize,
    /// Channels of a pixel.
    pub c: usize,
    /// From one pixel to the next in its row.
    pub pixel_stride: usize,
    /// From one row to the next.
    pub row_stride: usize,
    /// From one image to the next.
    pub image_stride: usize,
    /// How many zero pixels can be read beyond each side of an image.
    pub halo: usize,
}

/// A range of an arena that a kernel may write what it likes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scratch {
    /// The first element.
    pub offset: usize,
    /// How many elements.
    pub len: usize,
}

impl View {
    /// The view of a whole buffer that starts at element `start` and has its channels packed, its halo included.
    pub fn buffer(start: usize, n: usize, h: usize, w: usize, c: usize, halo: usize) -> View {
        let row_stride = (w + 2 * halo) * c;
        let image_stride = (h + 2 * halo) * row_stride;
        let offset = start + halo * (row_stride + c);
        View { offset, n, h, w, c, pixel_stride: c, row_stride, image_stride, halo }
    }

    /// How many elements the buffer of [`View::buffer`] takes.
    pub fn buffer_len(n: usize, h: usize, w: usize, c: usize, halo: usize) -> usize {
        n * (h + 2 * halo) * (w + 2 * halo) * c
    }

    /// The view of `n` channels from channel `from` on.
    ///
    /// Panics if there are not so many.
    pub fn channels(self, from: usize, n: usize) -> View {
        assert!(from + n <= self.c, "channels {from}..{} of {}", from + n, self.c);
        View { offset: self.offset + from, c: n, ..self }
    }

    /// The view of one image.
    ///
    /// Panics if there is no such image.
    pub fn image(self, image: usize) -> View {
        assert!(image < self.n, "image {image} of {}", self.n);
        View { offset: self.offset + image * self.image_stride, n: 1, ..self }
    }

    /// The element that holds the first channel of a pixel.
    pub fn index(&self, image: usize, y: usize, x: usize) -> usize {
        self.offset + image * self.image_stride + y * self.row_stride + x * self.pixel_stride
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.n == 0 || self.h == 0 || self.w == 0 || self.c == 0
    }

    /// First and one past the last element, with the halo; `None` if that overflows or begins below zero.
    fn range(&self, halo: usize) -> Option<(usize, usize)> {
        let before = halo.checked_mul(self.row_stride.checked_add(self.pixel_stride)?)?;
        let start = self.offset.checked_sub(before)?;
        let images = (self.n - 1).checked_mul(self.image_stride)?;
        let rows = (self.h - 1).checked_add(halo)?.checked_mul(self.row_stride)?;
        let pixels = (self.w - 1).checked_add(halo)?.checked_mul(self.pixel_stride)?;
        let end =
            self.offset.checked_add(images)?.checked_add(rows)?.checked_add(pixels)?.checked_add(self.c)?;
        Some((start, end))
    }

    /// Whether pixels, rows and images do not overlap each other.
    fn is_injective(&self) -> Option<bool> {
        let row = (self.w - 1).checked_mul(self.pixel_stride)?.checked_add(self.c)?;
        let image = (self.h - 1).checked_mul(self.row_stride)?.checked_add(row)?;
        Some(
            (self.w == 1 || self.c <= self.pixel_stride)
                && (self.h == 1 || row <= self.row_stride)
                && (self.n == 1 || image <= self.image_stride),
        )
    }

    /// Panics unless every element, the halo's too, lies in an arena of `len` elements, and no two are the same.
    #[track_caller]
    pub(crate) fn assert_inside(&self, len: usize) {
        if self.is_empty() {
            return;
        }
        let inside = self.range(self.halo).is_some_and(|(_, end)| end <= len);
        assert!(inside, "{self:?} does not lie inside an arena of {len} elements");
        assert!(self.is_injective() == Some(true), "{self:?} overlaps itself");
    }

    /// Panics unless this view, which is written without its halo, shares no element with `read` and its halo.
    ///
    /// Both must have passed `assert_inside`.
    #[track_caller]
    pub(crate) fn assert_disjoint(&self, read: &View) {
        assert!(self.is_disjoint(read), "{self:?} is written while {read:?} is read, and they overlap");
    }

    fn is_disjoint(&self, read: &View) -> bool {
        if self.is_empty() || read.is_empty() {
            return true;
        }
        let (Some(a), Some(b)) = (self.range(0), read.range(read.halo)) else { return false };
        if a.1 <= b.0 || b.1 <= a.0 {
            return true;
        }
        // Channel ranges of one buffer: with all strides a multiple of the same pixel stride, two elements can be the
        // same only if their indices are equal modulo that stride. There, the channels of a view are one interval on
        // a circle.
        let stride = self.pixel_stride;
        let on_grid = |v: &View| {
            v.pixel_stride == stride
                && [v.row_stride, v.image_stride].iter().all(|s| s.is_multiple_of(stride))
        };
        if stride == 0 || !on_grid(self) || !on_grid(read) {
            return false;
        }
        let ahead = (read.offset % stride + stride - self.offset % stride) % stride;
        self.c <= ahead && ahead + read.c <= stride
    }

    /// Panics unless images, rows and columns agree.
    #[track_caller]
    pub(crate) fn assert_same_pixels(&self, other: &View) {
        let (a, b) = ([self.n, self.h, self.w], [other.n, other.h, other.w]);
        assert!(a == b, "views of {a:?} and {b:?} (n, h, w) do not agree");
    }
}

impl Scratch {
    /// Panics unless the range lies in an arena of `len` elements and has at least `want` of them.
    #[track_caller]
    pub(crate) fn assert_holds(&self, want: usize, len: usize) {
        assert!(self.len >= want, "scratch of {} elements, expected {want}", self.len);
        let inside = self.offset.checked_add(self.len).is_some_and(|end| end <= len);
        assert!(inside, "{self:?} does not lie inside an arena of {len} elements");
    }

    /// Panics unless the range shares no element with the views and their halos.
    ///
    /// All must have been checked to lie inside the arena.
    #[track_caller]
    pub(crate) fn assert_outside_all(&self, views: &[Option<View>]) {
        for view in views.iter().flatten().filter(|v| !v.is_empty() && self.len > 0) {
            let (start, end) = view.range(view.halo).expect("the view was checked to lie inside the arena");
            assert!(self.offset + self.len <= start || end <= self.offset, "{self:?} overlaps {view:?}");
        }
    }
}

/// Panics unless both views lie inside an arena of `len` elements, apart, with the same images and channels.
#[track_caller]
pub(crate) fn assert_map(len: usize, input: &View, output: &View) {
    input.assert_inside(len);
    output.assert_inside(len);
    output.assert_disjoint(&View { halo: 0, ..*input });
    assert!(input.n == output.n && input.c == output.c, "{input:?} to {output:?}");
    assert!(output.is_empty() || !input.is_empty(), "{output:?} from {input:?}, which is empty");
}

/// The windows that a convolution slides over its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
}

impl Window {
    /// Panics unless the windows of all outputs lie inside the input's halo, and the output inside the arena and apart
    /// from what is read.
    #[track_caller]
    pub(crate) fn assert_fits(&self, len: usize, input: &View, output: &View, residual: Option<&View>) {
        input.assert_inside(len);
        output.assert_inside(len);
        output.assert_disjoint(input);
        assert!(input.n == output.n, "{} images in, {} out", input.n, output.n);
        // An empty view has no place in the arena that could be checked, so nothing may be computed from it.
        assert!(output.is_empty() || !input.is_empty(), "{output:?} from {input:?}, which is empty");
        for (i, (input_size, output_size)) in
            [(input.h, output.h), (input.w, output.w)].into_iter().enumerate()
        {
            // One past the last row or column that is read, from the start of the padding.
            let end = output_size
                .checked_sub(1)
                .and_then(|last| last.checked_mul(self.stride[i])?.checked_add(self.kernel[i]));
            let readable = (input_size + input.halo).saturating_add(self.padding[i]);
            assert!(
                self.padding[i] <= input.halo && end.is_none_or(|end| end <= readable),
                "{self:?} from {input:?} to {output:?} reads beyond the halo"
            );
        }
        if let Some(residual) = residual {
            residual.assert_inside(len);
            residual.assert_same_pixels(output);
            assert!(residual.c == output.c, "residual of {} channels, expected {}", residual.c, output.c);
            output.assert_disjoint(&View { halo: 0, ..*residual });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "which is empty")]
    fn nothing_is_computed_from_an_empty_view() {
        // Its place is never checked, because it has no element that could lie outside.
        let nowhere = View { offset: 1 << 40, h: 0, ..View::buffer(0, 1, 4, 4, 8, 2) };
        let window = Window { kernel: [1, 1], stride: [1, 1], padding: [0, 0] };
        window.assert_fits(1 << 20, &nowhere, &View::buffer(0, 1, 2, 2, 8, 0), None);
    }

    fn disjoint(a: &View, b: &View) -> bool {
        a.is_disjoint(b)
    }

    #[test]
    fn channel_ranges_of_one_buffer_are_disjoint() {
        let whole = View::buffer(64, 2, 5, 7, 48, 1);
        assert!(disjoint(&whole.channels(0, 16), &whole.channels(16, 32)));
        assert!(disjoint(&whole.channels(32, 16), &whole.channels(0, 32)));
        assert!(!disjoint(&whole.channels(0, 17), &whole.channels(16, 32)));
        assert!(!disjoint(&whole, &whole));
    }

    #[test]
    fn buffers_are_disjoint_by_their_ranges() {
        let a = View::buffer(0, 1, 4, 4, 8, 1);
        let next = View::buffer_len(1, 4, 4, 8, 1);
        assert!(disjoint(&a, &View::buffer(next, 1, 4, 4, 8, 1)));
        assert!(!disjoint(&a, &View::buffer(next / 2, 1, 4, 4, 6, 1)));
    }

    #[test]
    fn different_grids_that_overlap_are_not_disjoint() {
        let a = View { row_stride: 33, ..View::buffer(0, 1, 4, 4, 8, 0) };
        assert!(!disjoint(&a.channels(0, 4), &a.channels(4, 4)));
    }

    #[test]
    #[should_panic(expected = "does not lie inside")]
    fn beyond_the_end() {
        View::buffer(0, 1, 4, 4, 8, 1).assert_inside(View::buffer_len(1, 4, 4, 8, 1) - 1);
    }

    #[test]
    #[should_panic(expected = "does not lie inside")]
    fn before_the_start() {
        View { halo: 2, ..View::buffer(0, 1, 4, 4, 8, 1) }.assert_inside(1 << 20);
    }

    #[test]
    #[should_panic(expected = "does not lie inside")]
    fn overflow() {
        View { row_stride: usize::MAX / 2, ..View::buffer(0, 1, 4, 4, 8, 0) }.assert_inside(1 << 20);
    }

    #[test]
    #[should_panic(expected = "overlaps itself")]
    fn rows_that_overlap() {
        View { row_stride: 8, ..View::buffer(0, 1, 4, 4, 8, 0) }.assert_inside(1 << 20);
    }
}
