//! Batches on a GPU: what is sent, and what becomes of the answer.

use std::cell::RefCell;
use std::time::Instant;

use ferroyolo_kernels::View;

use super::{Batch, Prepared, Session, no_arena, results, wanted};
use crate::backend::gpu::{Errand, Frame, Gpu, Input, Picture, Wanted, elements, pictures_fit};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::modules::NetworkHead;
use crate::results::Results;
use crate::tasks::finish::{Extent, Prototypes, Source};
use crate::tasks::fit::Fit;
use crate::tasks::found::{Found, Layout, masks};

/// Batches that a GPU has at the same time: one computes, while the next one is sent and the last one read.
const MAX_RUNNING: usize = 3;

/// A batch on a GPU.
#[derive(Debug)]
pub(super) struct RunningBatch {
    frame: Frame,
    /// What it finds; absent if its maps are decoded on the host.
    found: Option<Layout>,
    prepared: Prepared,
    preprocessed: Instant,
}

impl Session {
    /// Ends the oldest batch that is running if no further one may.
    pub(super) fn make_room(&mut self) {
        let is_running = |batch: &Batch| matches!(batch, Batch::Running(_));
        if self.state.queue.iter().filter(|batch| is_running(batch)).count() < MAX_RUNNING {
            return;
        }
        if let Some(idx) = self.state.queue.iter().position(is_running) {
            // What is told should making its results panic.
            let waits = Batch::Done(Err(Error::device("gpu", "the batch was given up")));
            let oldest = std::mem::replace(&mut self.state.queue[idx], waits);
            self.state.queue[idx] = Batch::Done(self.end(oldest));
        }
    }

    /// Sends the pictures to the device, scaled here if it can't do that.
    pub(super) fn start_on_gpu(&mut self, images: &[&Image], prepared: Prepared) -> Result<Batch> {
        let pictures = || {
            let pairs = images.iter().zip(&prepared.fits);
            pairs.map(|(image, fit)| match fit {
                Fit::Letterbox { letterbox, spec } => Some(Picture { image, letterbox, input: spec }),
                Fit::Crop { .. } => None,
            })
        };
        let pictures: Option<Vec<Picture<'_>>> = pictures().collect();
        let gpu = self.model.network.gpu();
        let pictures = pictures.filter(|pictures| gpu.is_some_and(|gpu| pictures_fit(gpu, pictures)));
        if pictures.is_none() {
            self.fit_to_arena(images, &prepared)?;
        }
        let Self { model, state } = self;
        let input = match &pictures {
            Some(pictures) => Input::Pictures(pictures),
            None => {
                let arena = state.arena.as_ref().ok_or_else(no_arena)?;
                Input::Values(arena.as_slice())
            }
        };
        let preprocessed = Instant::now();
        // Several classes for a cell are found on the host only.
        let found = prepared.planned.found.filter(|_| !prepared.options.multi_label);
        let parameters =
            found.map(|layout| layout.parameters(&wanted(&prepared.options, prepared.branches).filter));
        let brought = parameters.as_deref().map_or(Wanted::Values, Wanted::Found);
        let frame = model.network.start(&prepared.planned, input, brought, &mut state.device)?;
        drop(pictures);
        Ok(Batch::Running(Box::new(RunningBatch { frame, found, prepared, preprocessed })))
    }

    /// Waits for a batch, and keeps what its run took for the next one.
    pub(super) fn end_on_gpu(&mut self, batch: RunningBatch) -> Result<Vec<Results>> {
        let RunningBatch { mut frame, found, prepared, preprocessed } = batch;
        let all = match found {
            Some(layout) => self.results_of_found(&mut frame, layout, &prepared, preprocessed),
            None => self.results_of_maps(&mut frame, &prepared, preprocessed),
        }?;
        // What a failed run leaves behind is not used again.
        self.state.device.keep(frame);
        Ok(all)
    }

    /// The results of a run whose maps are decoded on the host.
    fn results_of_maps(
        &mut self,
        frame: &mut Frame,
        prepared: &Prepared,
        preprocessed: Instant,
    ) -> Result<Vec<Results>> {
        self.make_arena(prepared.planned.plan.arena_len)?;
        let Self { model, state } = self;
        let gpu = model.network.gpu().ok_or_else(no_arena)?;
        let arena = state.arena.as_mut().ok_or_else(no_arena)?;
        model.network.finish(&prepared.planned, frame)?;
        frame.read_values(gpu, arena.as_mut_slice())?;
        results(model, Source::Maps(arena), prepared, preprocessed, &mut state.finish)
    }

    /// The results of a run whose objects were found on the device.
    fn results_of_found(
        &mut self,
        frame: &mut Frame,
        layout: Layout,
        prepared: &Prepared,
        preprocessed: Instant,
    ) -> Result<Vec<Results>> {
        let plan = &prepared.planned.plan;
        let gpu = self.model.network.gpu().ok_or_else(no_arena)?;
        let proto = match self.model.network.head() {
            NetworkHead::Detect(head) => head.proto().and_then(|proto| plan.views[proto.0]),
            NetworkHead::Map(_) => None,
        };
        let masks_on_device = proto.is_some_and(|proto| prepared.has_masks_on_device(&proto, gpu));
        if proto.is_some() && !masks_on_device {
            self.make_arena(plan.arena_len)?;
        }
        let Self { model, state } = self;
        let gpu = model.network.gpu().ok_or_else(no_arena)?;
        let mut words = Vec::new();
        model.network.finish(&prepared.planned, frame)?;
        frame.read_found(gpu, &mut words)?;
        let n_read = words.len();
        frame.fetch_found(gpu, n_read..layout.n_used(&words).max(n_read), &mut words)?;
        let found = Found::new(layout, words);
        let frame = RefCell::new(frame);
        let run = |errand: &Errand| frame.borrow_mut().run_errand(gpu, errand);
        let prototypes = match (proto, &mut state.arena) {
            (Some(_), _) if masks_on_device => Prototypes::Device(&run),
            (Some(proto), Some(arena)) => {
                frame.borrow_mut().fetch_values(gpu, elements(&proto), arena.as_mut_slice())?;
                Prototypes::Host(arena)
            }
            _ => Prototypes::None,
        };
        let source = Source::Found(&found, prototypes);
        results(model, source, prepared, preprocessed, &mut state.finish)
    }
}

impl Prepared {
    /// Whether the device can make the masks: none in the prototypes' size, and none that is too large for it.
    fn has_masks_on_device(&self, prototypes: &View, gpu: &Gpu) -> bool {
        let frame_hw = |fit: &Fit, image_hw: [usize; 2]| {
            if self.options.retina_masks { image_hw } else { fit.net_hw() }
        };
        let mut frames =
            self.fits.iter().zip(&self.image_hws).map(|(fit, &image_hw)| frame_hw(fit, image_hw));
        let fits = |hw: [usize; 2]| masks::max_words(hw) <= gpu.max_words();
        self.extent == Extent::Cut && prototypes.c <= masks::MAX_CHANNELS && frames.all(fits)
    }
}
