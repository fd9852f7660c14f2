//! Bringing pictures into a network's input, as its task wants them.

use crate::error::Result;
use crate::image::{CenterCrop, Image, InputSpec, Letterbox, LetterboxScratch, Normalization, Placement};
use crate::results::Task;

/// What a network wants its pictures to look like.
#[derive(Clone, Debug)]
pub(crate) struct FitSpec {
    pub task: Task,
    pub placement: Placement,
    pub pad_value: u8,
    pub normalization: Normalization,
    /// Input sides are multiples of it.
    pub stride: usize,
}

/// How one picture is brought into the input.
#[derive(Clone, Debug)]
pub(crate) enum Fit {
    /// Scaled, with or without padding.
    Letterbox { letterbox: Letterbox, spec: InputSpec },
    /// The middle, for classifiers.
    Crop { crop: CenterCrop, normalization: Normalization },
}

impl Fit {
    /// Fits a picture of `image_hw` into an input of `imgsz`, or, if `rect`, into as little of it as it needs.
    ///
    /// Classifiers see the picture's middle, depth networks the picture stretched to the input, all others the picture
    /// with padding.
    pub(crate) fn new(image_hw: [usize; 2], imgsz: [usize; 2], rect: bool, spec: &FitSpec) -> Result<Self> {
        let letterbox = match spec.task {
            Task::Classify => {
                let crop = CenterCrop::new(image_hw, imgsz)?;
                return Ok(Self::Crop { crop, normalization: spec.normalization });
            }
            Task::Depth => Letterbox::stretch(image_hw, imgsz)?,
            // Networks that put the picture in the corner were trained on the full square.
            _ if rect && spec.placement == Placement::Center => {
                Letterbox::rect(image_hw, imgsz, spec.placement, spec.stride)?
            }
            _ => Letterbox::new(image_hw, imgsz, spec.placement)?,
        };
        let spec = InputSpec { pad_value: spec.pad_value, ..InputSpec::default() };
        Ok(Self::Letterbox { letterbox, spec })
    }

    /// Size of the input.
    pub(crate) fn net_hw(&self) -> [usize; 2] {
        match self {
            Self::Letterbox { letterbox, .. } => letterbox.net_hw(),
            Self::Crop { crop, .. } => crop.net_hw(),
        }
    }

    /// Writes the picture as pixels of three values; row `y` begins at `rows[y * row_stride]`.
    pub(crate) fn write(
        &self,
        image: &Image,
        rows: &mut [f32],
        row_stride: usize,
        scratch: &mut LetterboxScratch,
    ) -> Result<()> {
        match self {
            Self::Letterbox { letterbox, spec } => letterbox.write(image, spec, rows, row_stride, scratch),
            Self::Crop { crop, normalization } => crop.write(image, normalization, rows, row_stride),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net_hw(task: Task, image_hw: [usize; 2], rect: bool) -> [usize; 2] {
        let spec = FitSpec {
            task,
            placement: Placement::Center,
            pad_value: 114,
            normalization: Normalization::default(),
            stride: 32,
        };
        Fit::new(image_hw, [160, 160], rect, &spec).unwrap().net_hw()
    }

    #[test]
    fn only_letterboxes_are_trimmed() {
        assert_eq!(net_hw(Task::Detect, [480, 640], true), [128, 160]);
        assert_eq!(net_hw(Task::Semantic, [480, 640], true), [128, 160]);
        assert_eq!(net_hw(Task::Detect, [480, 640], false), [160, 160]);
        assert_eq!(net_hw(Task::Depth, [480, 640], true), [160, 160]);
        assert_eq!(net_hw(Task::Classify, [480, 640], true), [160, 160]);
    }
}
