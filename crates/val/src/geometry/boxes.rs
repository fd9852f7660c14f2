//! Upright boxes `[x1, y1, x2, y2]`.

/// Area of a box; nothing if it is turned inside out.
#[must_use]
pub fn area([x1, y1, x2, y2]: [f64; 4]) -> f64 {
    (x2 - x1).max(0.0) * (y2 - y1).max(0.0)
}

/// Intersection over union of two boxes, 0 if both are empty.
#[must_use]
pub fn box_iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let overlap = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let union = area(a) + area(b) - overlap;
    if union > 0.0 { overlap / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_boxes() {
        let a = [0.0, 0.0, 2.0, 2.0];
        assert_eq!(box_iou(a, a), 1.0);
        assert_eq!(box_iou(a, [1.0, 0.0, 3.0, 2.0]), 1.0 / 3.0);
        assert_eq!(box_iou(a, [2.0, 0.0, 4.0, 2.0]), 0.0);
        assert_eq!(box_iou([1.0; 4], [1.0; 4]), 0.0);
        assert_eq!(box_iou(a, [3.0, 3.0, 1.0, 1.0]), 0.0);
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_and_a_share(a in any_box(), b in any_box()) {
            let iou = box_iou(a, b);
            prop_assert!((0.0..=1.0).contains(&iou));
            prop_assert_eq!(iou, box_iou(b, a));
        }
    }

    fn any_box() -> impl Strategy<Value = [f64; 4]> {
        prop::array::uniform4(-10.0..10.0f64)
    }
}
