//! Finding objects on the GPU: an invocation for a cell, and for the best of an image a workgroup.

use ferroyolo_kernels::View;
use ferroyolo_shaders::{DETECTIONS, TOP_K};

use super::{Layout, masks};
use crate::backend::gpu::{Finder, Job, THREADS, job_struct, lanes_for, pixels, word};
use crate::graph::{Plan, ValueId};
use crate::modules::{Branch, Branches, DetectHead, Level, NetworkHead, Regression};

job_struct! {
    /// `Job` of `detections.wgsl`.
    DetectionsJob {
        first_workgroup, pixels, image_pixels, first_anchor, anchors, classes, classes_stride, n_classes, boxes,
        boxes_stride, reg_max, objectness, objectness_stride, n_objectness, extra, extra_stride, n_extra, is_staged,
        counter, rows, row_words,
    }
}

job_struct! {
    /// `Job` of `top_k.wgsl`.
    TopKJob {
        first_workgroup, images, k, anchors, n_classes, staged_counter, staged, counter, rows, row_words,
    }
}

/// What finds the objects of a plan that computes one branch of a head, and the layout of what it finds.
///
/// `None` if there is no such branch, if a buffer of `max_words` has no room for all cells, or if there is more than
/// `top_k.wgsl` can choose from. Then the maps are decoded on the host.
pub(crate) fn finder(
    head: &NetworkHead,
    branches: Branches,
    plan: &Plan,
    max_words: usize,
) -> Option<(Layout, Finder)> {
    let NetworkHead::Detect(head) = head else { return None };
    let branch = match branches {
        Branches { one2many: true, one2one: false } => &head.one2many,
        Branches { one2many: false, one2one: true } => head.one2one.as_ref()?,
        _ => return None,
    };
    // A plan that shaders can't number becomes no program.
    u32::try_from(plan.arena_len).ok()?;
    let (layout, jobs) = jobs(head, branch, branches.one2one, plan, max_words)?;
    let prototypes = head.proto().and_then(|proto| plan.views[proto.0]);
    let errand = prototypes.filter(|view| view.c <= masks::MAX_CHANNELS).map(|view| masks::job(&view));
    Some((layout, Finder { layout: layout.buffer(), jobs, errand }))
}

/// The work that finds the objects of `branch`, each with its round.
fn jobs(
    head: &DetectHead,
    branch: &Branch,
    is_one2one: bool,
    plan: &Plan,
    max_words: usize,
) -> Option<(Layout, Vec<(usize, Job)>)> {
    let view = |value: ValueId| plan.views[value.0];
    let classes: Vec<View> = branch.levels.iter().map(|level| view(level.classes)).collect::<Option<_>>()?;
    let n_anchors = classes.iter().map(View::pixels).sum();
    let layout = Layout::new(head, is_one2one, classes.first()?.n, n_anchors)?;
    if layout.n_words() > max_words {
        return None;
    }
    let mut jobs = Vec::new();
    let mut first_anchor = 0;
    for level in &branch.levels {
        let job = detections(head, level, view, &layout, first_anchor)?;
        first_anchor += view(level.classes)?.pixels();
        jobs.push((1, job));
    }
    if let Some(k) = layout.k {
        jobs.push((2, top_k(&layout, k, &classes)));
    }
    Some((layout, jobs))
}

fn detections(
    head: &DetectHead,
    level: &Level,
    view: impl Fn(ValueId) -> Option<View>,
    layout: &Layout,
    first_anchor: usize,
) -> Option<Job> {
    let (boxes, classes) = (view(level.boxes)?, view(level.classes)?);
    // A map that there is none of has no values.
    let optional = |value: Option<ValueId>| match value {
        Some(value) => view(value),
        None => Some(View { c: 0, ..boxes }),
    };
    let (objectness, extra) = (optional(level.objectness)?, optional(level.extra)?);
    let reg_max = match head.regression {
        Regression::Distances { reg_max } => reg_max,
        Regression::CenterSize => 1,
    };
    let is_staged = layout.k.is_some();
    let job = DetectionsJob {
        first_workgroup: 0,
        pixels: word(pixels(&classes)),
        image_pixels: word(classes.pixels()),
        first_anchor: word(first_anchor),
        anchors: word(layout.n_anchors),
        classes: word(classes.offset),
        classes_stride: word(classes.pixel_stride),
        n_classes: word(classes.c),
        boxes: word(boxes.offset),
        boxes_stride: word(boxes.pixel_stride),
        reg_max: word(reg_max),
        objectness: word(objectness.offset),
        objectness_stride: word(objectness.pixel_stride),
        n_objectness: word(objectness.c),
        extra: word(extra.offset),
        extra_stride: word(extra.pixel_stride),
        n_extra: word(extra.c),
        is_staged: u32::from(is_staged),
        counter: word(if is_staged { layout.counter() + 1 } else { layout.counter() }),
        rows: word(if is_staged { layout.staged() } else { layout.n_parameters() }),
        row_words: word(layout.row_words()),
    };
    // Only logits are read in fours.
    let (lanes, overrides) = lanes_for(&[classes]);
    Some(Job {
        shader: DETECTIONS,
        overrides,
        lanes,
        workgroups: pixels(&classes).div_ceil(THREADS),
        workgroup_bytes: 0,
        words: job.words(),
        weights: None,
        product: None,
    })
}

fn top_k(layout: &Layout, k: usize, classes: &[View]) -> Job {
    let job = TopKJob {
        first_workgroup: 0,
        images: word(layout.n_images),
        k: word(k),
        anchors: word(layout.n_anchors),
        n_classes: word(layout.n_classes),
        staged_counter: word(layout.counter() + 1),
        staged: word(layout.staged()),
        counter: word(layout.counter()),
        rows: word(layout.n_parameters()),
        row_words: word(layout.row_words()),
    };
    let (lanes, overrides) = lanes_for(classes);
    Job {
        shader: TOP_K,
        overrides,
        lanes,
        workgroups: layout.n_images,
        workgroup_bytes: 0,
        words: job.words(),
        weights: None,
        product: None,
    }
}
