//! From a network's outputs to the results of one picture, for every task.

use std::sync::Arc;

use ferroyolo_kernels::{Arena, Context};

use super::detect::{Decoder, Filter, Scratch};
use super::fit::Fit;
#[cfg(feature = "gpu")]
use super::found::{self, Found};
use super::map;
use super::nms::{Candidate, NmsOptions, nms};
use super::obb::{RotatedCandidate, nms_rotated};
use super::scale::{Axis, Compact, Dense, Ends, MapView, Rows, Scaled};
use super::segment::{MaskScratch, MaskSize};
#[cfg(feature = "gpu")]
use crate::backend::gpu::Errand;
use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::image::Letterbox;
use crate::modules::{DetectHead, Extra, MapHead, MapKind, NetworkHead};
use crate::results::{
    Boxes, ClassMap, DepthMap, Keypoint, Keypoints, Masks, Probs, Results, RotatedBoxes, RotatedDetection,
};

/// Which objects are wanted, and how.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub filter: Filter<'a>,
    pub nms: NmsOptions,
    /// Read the branch that needs no suppression.
    pub one2one: bool,
    pub mask_size: MaskSize,
    pub extent: Extent,
}

/// What becomes of objects that lie partly, or wholly, outside of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// They are cut at its borders, and those whose mask has no pixel are left out.
    Cut,
    /// They are told as the network has them, masks in the prototypes' size too.
    Whole,
}

/// Working memory, kept from picture to picture.
#[derive(Debug, Default)]
pub(crate) struct FinishScratch {
    pub decode: Scratch,
    candidates: Vec<Candidate>,
    rotated: Vec<RotatedCandidate>,
    extra: Vec<f32>,
    masks: MaskScratch,
}

/// The outputs of one run.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub context: Context<'a>,
    pub head: &'a NetworkHead,
    pub plan: &'a Plan,
    pub source: Source<'a>,
    pub names: &'a Arc<[String]>,
}

/// Where the outputs of a run are.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// All maps are in an arena on the host.
    Maps(&'a Arena),
    /// A device has looked for objects in them.
    #[cfg(feature = "gpu")]
    Found(&'a Found, Prototypes<'a>),
}

/// Where the prototypes of masks are.
#[cfg(feature = "gpu")]
#[derive(Clone, Copy)]
pub(crate) enum Prototypes<'a> {
    /// There are none.
    None,
    /// In an arena on the host.
    Host(&'a Arena),
    /// On a device, which makes masks of them when it is asked to.
    Device(&'a dyn Fn(&Errand) -> Result<Vec<u32>>),
}

impl<'a> Source<'a> {
    fn arena(self) -> Result<&'a Arena> {
        match self {
            Self::Maps(arena) => Ok(arena),
            #[cfg(feature = "gpu")]
            Self::Found(_, Prototypes::Host(arena)) => Ok(arena),
            #[cfg(feature = "gpu")]
            Self::Found(..) => Err(not_planned()),
        }
    }
}

impl Run<'_> {
    /// The results of picture `image` of the batch, which was brought into the input by `fit`.
    ///
    /// Errors with `ErrorKind::Weights` if the network gives values that are not finite where every value counts.
    pub(crate) fn finish(
        &self,
        image: usize,
        image_hw: [usize; 2],
        fit: &Fit,
        wanted: &Wanted<'_>,
        scratch: &mut FinishScratch,
    ) -> Result<Results> {
        match (self.head, fit) {
            (NetworkHead::Detect(head), Fit::Letterbox { letterbox, .. }) => {
                self.objects(head, image, letterbox, wanted, scratch)
            }
            (NetworkHead::Map(head), fit) => self.map(head, image, image_hw, fit),
            (NetworkHead::Detect(_), Fit::Crop { .. }) => Err(not_planned()),
        }
    }

    fn objects(
        &self,
        head: &DetectHead,
        image: usize,
        letterbox: &Letterbox,
        wanted: &Wanted<'_>,
        scratch: &mut FinishScratch,
    ) -> Result<Results> {
        let branch = if wanted.one2one { head.one2one.as_ref() } else { Some(&head.one2many) };
        let decoder =
            branch.and_then(|branch| Decoder::new(head, branch, self.plan)).ok_or_else(not_planned)?;
        let image_hw = letterbox.image_hw();
        let FinishScratch { decode, candidates, rotated, extra, masks: mask_scratch } = scratch;
        candidates.clear();
        self.propose(&decoder, image, wanted, decode, candidates);
        let read_extra = |anchor: u32, extra: &mut Vec<f32>| match self.source {
            Source::Maps(arena) => decoder.extra(arena, image, anchor as usize, extra),
            #[cfg(feature = "gpu")]
            Source::Found(found, _) => found.extra(&decoder, image, anchor as usize, extra),
        };

        if let Extra::Angle { .. } = head.extra {
            rotated.clear();
            for found in candidates.iter() {
                read_extra(found.anchor, extra);
                rotated.push(with_angle(found, extra[0]));
            }
            let kept: Vec<usize> = if wanted.one2one {
                let is_finite = |idx: &usize| rotated[*idx].xywhr[4].is_finite();
                (0..rotated.len()).filter(is_finite).take(wanted.nms.max_det).collect()
            } else {
                nms_rotated(rotated, &wanted.nms)
            };
            let mut obb = RotatedBoxes::new(image_hw);
            for RotatedCandidate { xywhr, score, class, .. } in kept.into_iter().map(|idx| rotated[idx]) {
                let xywhr = letterbox.map_rotated(xywhr);
                obb.push(RotatedDetection { xywhr, confidence: score, class: class as usize });
            }
            return Ok(Results::obb(Arc::clone(self.names), image_hw, obb));
        }

        let kept: Vec<usize> = if wanted.one2one {
            (0..candidates.len().min(wanted.nms.max_det)).collect()
        } else {
            nms(candidates, &wanted.nms)
        };
        let kept = kept.into_iter().map(|idx| candidates[idx]);
        let mut boxes = Boxes::new(image_hw);
        let mut push = |found: &Candidate| {
            let xyxy = match wanted.extent {
                Extent::Cut => letterbox.map_box(found.xyxy),
                Extent::Whole => map_box_whole(letterbox, found.xyxy),
            };
            boxes.push(xyxy, found.score, found.class as usize);
        };
        match head.extra {
            Extra::Masks { proto, .. } => {
                let prototypes = self.plan.views[proto.0].as_ref().ok_or_else(not_planned)?;
                let mut masks = match wanted.mask_size {
                    MaskSize::Picture => Masks::new(image_hw),
                    MaskSize::Input | MaskSize::Prototypes => Masks::in_input(letterbox),
                };
                mask_scratch.start();
                let place = |found: &Candidate| match wanted.mask_size {
                    MaskSize::Picture => letterbox.map_box(found.xyxy),
                    MaskSize::Input | MaskSize::Prototypes => found.xyxy,
                };
                #[cfg(feature = "gpu")]
                if let Source::Found(_, Prototypes::Device(run)) = self.source {
                    let kept: Vec<Candidate> = kept.collect();
                    let hw = [prototypes.h, prototypes.w];
                    let mut objects = Vec::with_capacity(kept.len());
                    for found in &kept {
                        read_extra(found.anchor, extra);
                        let area = mask_scratch.area(hw, place(found), letterbox, wanted.mask_size)?;
                        objects.push((area, extra.clone()));
                    }
                    for (found, mask) in kept.iter().zip(found::masks::masks(image, &objects, run)?) {
                        if let Some(mask) = mask {
                            push(found);
                            masks.push(mask);
                        }
                    }
                    return Ok(Results::segment(Arc::clone(self.names), image_hw, boxes, masks));
                }
                let prototypes = MapView::new(self.source.arena()?, prototypes, image);
                for found in kept {
                    read_extra(found.anchor, extra);
                    let xyxy = place(&found);
                    let mut mask = |xyxy, size| mask_scratch.mask(&prototypes, extra, xyxy, letterbox, size);
                    let of_object = mask(xyxy, wanted.mask_size)?;
                    match wanted.extent {
                        // An object without a pixel is none.
                        Extent::Cut => {
                            if let Some(of_object) = of_object {
                                push(&found);
                                masks.push(of_object);
                            }
                        }
                        Extent::Whole => {
                            let [steps_y, steps_x] = [0, 1]
                                .map(|axis| prototypes.hw[axis] as f32 / letterbox.net_hw()[axis] as f32);
                            let [x1, y1, x2, y2] = found.xyxy;
                            let xyxy = [x1 * steps_x, y1 * steps_y, x2 * steps_x, y2 * steps_y];
                            let coarse = mask(xyxy, MaskSize::Prototypes)?;
                            push(&found);
                            masks.push_whole(of_object, coarse, prototypes.hw)?;
                        }
                    }
                }
                Ok(Results::segment(Arc::clone(self.names), image_hw, boxes, masks))
            }
            Extra::Keypoints { n, values, .. } => {
                let mut keypoints = Keypoints::new(image_hw, n);
                for found in kept {
                    read_extra(found.anchor, extra);
                    if extra.iter().all(|value| value.is_finite()) {
                        push(&found);
                        let points: Vec<Keypoint> = extra
                            .chunks_exact(values)
                            .map(|point| keypoint(point, letterbox, wanted.extent))
                            .collect();
                        keypoints.push(&points)?;
                    }
                }
                Ok(Results::pose(Arc::clone(self.names), image_hw, boxes, keypoints))
            }
            Extra::None | Extra::Angle { .. } => {
                kept.for_each(|found| push(&found));
                Ok(Results::detect(Arc::clone(self.names), image_hw, boxes))
            }
        }
    }

    /// Collects the boxes of one image that pass, of a one-to-one branch by falling score.
    fn propose(
        &self,
        decoder: &Decoder<'_>,
        image: usize,
        wanted: &Wanted<'_>,
        scratch: &mut Scratch,
        candidates: &mut Vec<Candidate>,
    ) {
        let filter = &wanted.filter;
        let mut push = |found: Candidate| {
            if filter.passes(&found) {
                candidates.push(found);
            }
        };
        match self.source {
            Source::Maps(arena) if wanted.one2one => {
                decoder.top_k(self.context, arena, image, scratch, |_, found| push(found));
            }
            Source::Maps(arena) => {
                decoder.candidates(self.context, arena, image, filter, scratch, candidates);
            }
            #[cfg(feature = "gpu")]
            Source::Found(found, _) if wanted.one2one => found.top_k(decoder, image, push),
            #[cfg(feature = "gpu")]
            Source::Found(found, _) => found.candidates(decoder, image, filter, candidates),
        }
    }

    fn map(&self, head: &MapHead, image: usize, image_hw: [usize; 2], fit: &Fit) -> Result<Results> {
        let view = self.plan.views[head.map.0].ok_or_else(not_planned)?;
        let names = Arc::clone(self.names);
        let raw = || {
            let mut raw = vec![0.0; view.c * view.pixels()];
            map::write_raw(head, self.context, self.source.arena()?, view, image, &mut raw);
            check_finite(&raw).map(|()| raw)
        };
        match (head.kind, fit) {
            (MapKind::Classes, _) => Ok(Results::classify(names, image_hw, Probs::new(raw()?))),
            (MapKind::Depth { .. }, Fit::Letterbox { letterbox, .. }) => {
                let meters = depth_map(&raw()?, [view.h, view.w], letterbox);
                Ok(Results::depth(names, DepthMap::new(image_hw, meters)?))
            }
            (MapKind::Semantic, Fit::Letterbox { letterbox, .. }) => {
                let logits = MapView::new(self.source.arena()?, &view, image);
                for y in 0..view.h {
                    (0..view.w).try_for_each(|x| check_finite(logits.pixel(y, x)))?;
                }
                Ok(Results::semantic(names, ClassMap::new(image_hw, class_map(logits, letterbox))?))
            }
            (MapKind::Semantic | MapKind::Depth { .. }, Fit::Crop { .. }) => Err(not_planned()),
        }
    }
}

/// The box of a candidate, turned around its center.
fn with_angle(found: &Candidate, angle: f32) -> RotatedCandidate {
    let [x1, y1, x2, y2] = found.xyxy;
    RotatedCandidate {
        xywhr: [(x1 + x2) / 2.0, (y1 + y2) / 2.0, x2 - x1, y2 - y1, angle],
        score: found.score,
        class: found.class,
        anchor: found.anchor,
    }
}

/// Maps a box of the input to the picture, where it may reach outside.
fn map_box_whole(letterbox: &Letterbox, [x1, y1, x2, y2]: [f32; 4]) -> [f32; 4] {
    let ([x1, y1], [x2, y2]) = (letterbox.map_point([x1, y1]), letterbox.map_point([x2, y2]));
    [x1, y1, x2, y2]
}

/// `values`: x and y in pixels of the input, then how visible the point is if the network says so.
fn keypoint(values: &[f32], letterbox: &Letterbox, extent: Extent) -> Keypoint {
    let xy = [values[0], values[1]];
    let xy = match extent {
        Extent::Cut => letterbox.map_point_clipped(xy),
        Extent::Whole => letterbox.map_point(xy),
    };
    Keypoint { xy, visible: values.get(2).copied() }
}

/// The distance of each pixel of the picture, row after row, from those of a map of `hw` cells.
fn depth_map(meters: &[f32], hw: [usize; 2], letterbox: &Letterbox) -> Vec<f32> {
    let (net_hw, image_hw) = (letterbox.net_hw(), letterbox.image_hw());
    let axis = |from: usize, to: usize| Axis::new(from, to, Ends::Centers, 0..to);
    let to_input = [0, 1].map(|idx| axis(hw[idx], net_hw[idx]));
    let to_picture = [0, 1].map(|idx| axis(net_hw[idx], image_hw[idx]));
    let source = Dense { data: meters, row_stride: hw[1] };
    let input = Scaled::new(source, &to_input[0], &to_input[1], 1);
    let mut picture = Scaled::new(input, &to_picture[0], &to_picture[1], 1);
    let mut all = Vec::with_capacity(image_hw[0] * image_hw[1]);
    (0..image_hw[0]).for_each(|y| all.extend_from_slice(picture.row(y)));
    all
}

/// The class of each pixel of the picture, row after row.
///
/// Logits are scaled up to the input, freed of its padding, and scaled to the picture; the largest wins, of equal ones
/// the first. A network of one class tells where it is (1) and where not (0).
fn class_map(logits: MapView<'_>, letterbox: &Letterbox) -> Vec<u16> {
    let (net_hw, image_hw, window) = (letterbox.net_hw(), letterbox.image_hw(), letterbox.window());
    let to_input = [0, 1].map(|idx| {
        let start = window.top_left[idx];
        Axis::new(logits.hw[idx], net_hw[idx], Ends::Edges, start..start + window.hw[idx])
    });
    let to_picture =
        [0, 1].map(|idx| Axis::new(window.hw[idx], image_hw[idx], Ends::Edges, 0..image_hw[idx]));
    let channels = logits.channels;
    let input = Scaled::new(Compact::new(logits), &to_input[0], &to_input[1], channels);
    let mut picture = Scaled::new(input, &to_picture[0], &to_picture[1], channels);
    let mut classes = Vec::with_capacity(image_hw[0] * image_hw[1]);
    for y in 0..image_hw[0] {
        let pixels = picture.row(y).chunks_exact(channels);
        if channels == 1 {
            classes.extend(pixels.map(|pixel| u16::from(pixel[0] > 0.0)));
        } else {
            classes.extend(pixels.map(largest));
        }
    }
    classes
}

/// Index of the largest value, the first of equal ones.
fn largest(values: &[f32]) -> u16 {
    let mut best = (f32::NEG_INFINITY, 0);
    for (idx, &value) in values.iter().enumerate() {
        if value > best.0 {
            best = (value, idx);
        }
    }
    // A model file has 65536 classes at most.
    best.1 as u16
}

fn check_finite(values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => {
            Err(Error::weights("outputs", format!("the network gives {value}, expected finite numbers")))
        }
        None => Ok(()),
    }
}

fn not_planned() -> Error {
    Error::unsupported("head", "the plan does not compute this head")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Placement;

    const CHANNELS: usize = 5;

    /// Pseudo-random values from -1 to 1 in steps of a thousandth.
    fn values(n: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
            (f64::from((state >> 16) % 2001) / 1000.0 - 1.0) as f32
        };
        (0..n).map(|_| next()).collect()
    }

    fn fnv(classes: &[u16]) -> u64 {
        let step = |hash: u64, &class: &u16| (hash ^ u64::from(class)).wrapping_mul(0x100_0000_01b3);
        classes.iter().fold(0xcbf2_9ce4_8422_2325, step)
    }

    /// Classes as the reference implementation finds them in the same logits, as FNV hashes: of five classes, and of
    /// the first of them alone.
    #[test]
    fn class_maps_are_those_of_the_reference() {
        let data = values(4 * 5 * CHANNELS, 11);
        for (image_hw, expected, expected_of_one) in [
            ([32, 40], 0xb6f3_f9a6_79d5_e1ba, 0x720e_8944_d462_1444),
            ([30, 17], 0x92c6_04ef_6c57_6152, 0xf4fd_2a16_b404_3752),
            ([64, 100], 0x2eab_bdf4_0bf2_3e34, 0xff14_bfc9_fb1d_245c),
            ([7, 40], 0x7473_2e84_4b74_31c1, 0x8dad_9c3f_01ec_52bc),
            ([1, 1], 0xaf63_bd4c_8601_b7df, 0xaf63_bc4c_8601_b62c),
        ] {
            let letterbox = Letterbox::new(image_hw, [32, 40], Placement::Center).unwrap();
            let map = |channels| MapView {
                data: &data,
                hw: [4, 5],
                channels,
                pixel_stride: CHANNELS,
                row_stride: 5 * CHANNELS,
            };
            assert_eq!(fnv(&class_map(map(CHANNELS), &letterbox)), expected, "{image_hw:?}");
            assert_eq!(fnv(&class_map(map(1), &letterbox)), expected_of_one, "{image_hw:?}");
        }
    }

    #[test]
    fn depth_maps_are_those_of_the_reference() {
        let map = [2.678, 1.841, 1.787, 2.692, 1.491, 1.39, 2.74, 1.314, 2.015, 1.586, 2.783, 2.747];
        let letterbox = Letterbox::stretch([4, 3], [6, 8]).unwrap();
        let expected = [
            2.678, 1.814, 2.692, 1.886_67, 1.981_33, 1.773_33, 1.665_67, 2.104_83, 1.791_67, 2.015, 2.1845,
            2.747,
        ];
        let got = depth_map(&map, [3, 4], &letterbox);
        assert!(got.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?}");
        assert_eq!(got.len(), expected.len());
    }

    #[test]
    fn of_equal_values_the_first_wins() {
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(largest(&[f32::NEG_INFINITY, -1e30]), 1);
        assert_eq!(largest(&[0.0, -0.0]), 0);
        let most = [vec![0.0; 65_535], vec![1.0]].concat();
        assert_eq!(largest(&most), 65_535);
    }

    #[test]
    fn keypoints_stay_in_the_picture() {
        let letterbox = Letterbox::new([50, 100], [64, 64], Placement::Center).unwrap();
        assert_eq!(
            keypoint(&[32.0, 32.0, 0.7], &letterbox, Extent::Cut),
            Keypoint { xy: [50.0, 25.0], visible: Some(0.7) }
        );
        let outside = |extent| keypoint(&[-32.0, 64.0], &letterbox, extent).xy;
        assert_eq!((outside(Extent::Cut), outside(Extent::Whole)), ([0.0, 50.0], [-50.0, 75.0]));
    }
}
