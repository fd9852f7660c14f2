//! Confusion matrix and curves as pictures.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Once;

use ferroyolo::Image;
use ferroyolo_val::metrics::{ClassMetrics, ConfusionMatrix, Metrics};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::summary::{Compared, Kind, Summary, name_of, shortened};
use crate::error::{Error, Result};

/// Size of the pictures in pixels.
const SIZE: (u32, u32) = (1200, 900);

/// More classes than this have no line of their own.
const MAX_LINES: usize = 20;

/// More classes than this have no labels and no numbers.
const MAX_LABELS: usize = 40;

/// More classes than this would have cells smaller than a pixel.
const MAX_CELLS: usize = 400;

/// Letters of a class's name that fit beside a picture.
const NAME_WIDTH: usize = 18;

const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn StdError>>;

/// Saves what there is to draw in `directory`, and returns the files.
pub fn save(directory: &Path, summary: &Summary, names: &[String]) -> Result<Vec<PathBuf>> {
    let mut saved = Vec::new();
    let mut save = |name: String, draw: &dyn Fn(&Area<'_>) -> Drawn| {
        let path = directory.join(name);
        picture(&path, draw)?;
        saved.push(path);
        Ok::<(), Error>(())
    };
    let confusion = match &summary.kind {
        Kind::Objects(all, confusion) => {
            for Compared { what, coco: metrics, .. } in all {
                save(format!("{what}_precision_recall.png"), &|area| precision_recall(area, metrics, names))?;
                save(format!("{what}_confidence.png"), &|area| confidence_curves(area, metrics))?;
            }
            Some(confusion)
        }
        Kind::Classes(_, _, confusion) => Some(confusion),
        Kind::Pixels(_) => None,
    };
    if let Some(confusion) = confusion.filter(|confusion| confusion.n_classes() <= MAX_CELLS) {
        let has_background = matches!(summary.kind, Kind::Objects(..));
        save("confusion_matrix.png".into(), &|area| {
            confusion_matrix(area, confusion, names, has_background)
        })?;
    }
    Ok(saved)
}

/// Draws a picture on white and writes it.
fn picture(path: &Path, draw: &dyn Fn(&Area<'_>) -> Drawn) -> Result<()> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // It fails for what is no font, and then for each text as well.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
    let mut pixels = vec![255; SIZE.0 as usize * SIZE.1 as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        let drawn = draw(&area).and_then(|()| Ok(area.present()?));
        drawn.map_err(|error| Error::failed(format!("{}: can't be drawn: {error}", path.display())))?;
    }
    let image = Image::from_rgb8(SIZE.0 as usize, SIZE.1 as usize, pixels)?;
    image.save(path).map_err(|error| Error::at(path, error))
}

fn precision_recall(area: &Area<'_>, metrics: &Metrics, names: &[String]) -> Drawn {
    let points =
        |values: &[f64]| values.iter().enumerate().map(|(idx, &value)| (idx as f64 / 100.0, value)).collect();
    let is_few = metrics.classes.len() <= MAX_LINES;
    let of_class = |(idx, class): (usize, &ClassMetrics)| Line {
        name: is_few.then(|| format!("{} {:.3}", short(names, class.class), class.ap.ap50())),
        points: points(&class.precision_by_recall),
        style: if is_few { color(idx).stroke_width(2) } else { RGBColor(190, 190, 190).stroke_width(1) },
    };
    let mut lines: Vec<Line> = metrics.classes.iter().enumerate().map(of_class).collect();
    lines.push(Line {
        name: Some(format!("all classes {:.3} mAP50", metrics.ap.ap50())),
        points: points(&metrics.precision_by_recall()),
        style: BLUE.stroke_width(4),
    });
    let chart = Chart {
        caption: "Precision over recall at an overlap of 0.5",
        axes: ["recall", "precision"],
        legend_at: SeriesLabelPosition::LowerLeft,
        lines,
    };
    chart.draw(area)
}

fn confidence_curves(area: &Area<'_>, metrics: &Metrics) -> Drawn {
    let curves = [
        ("precision", &metrics.curve.precision),
        ("recall", &metrics.curve.recall),
        ("F1", &metrics.curve.f1),
    ];
    let of_curve = |(idx, (name, values)): (usize, (&str, &Vec<f64>))| {
        let last = (values.len().max(2) - 1) as f64;
        let points = values.iter().enumerate().map(|(at, &value)| (at as f64 / last, value)).collect();
        Line { name: Some(name.to_owned()), points, style: color(idx).stroke_width(3) }
    };
    let mut lines: Vec<Line> = curves.into_iter().enumerate().map(of_curve).collect();
    lines.push(Line {
        name: Some(format!("best F1 at {:.3}", metrics.confidence)),
        points: vec![(metrics.confidence, 0.0), (metrics.confidence, 1.02)],
        style: BLACK.stroke_width(1),
    });
    let chart = Chart {
        caption: "Means of all classes over the confidence, at an overlap of 0.5",
        axes: ["confidence", ""],
        legend_at: SeriesLabelPosition::LowerMiddle,
        lines,
    };
    chart.draw(area)
}

/// Lines over a square from 0 to 1.
struct Chart {
    caption: &'static str,
    /// What goes across, and what goes up.
    axes: [&'static str; 2],
    legend_at: SeriesLabelPosition,
    lines: Vec<Line>,
}

/// A line of a chart.
struct Line {
    /// What the legend calls it, if it does.
    name: Option<String>,
    points: Vec<(f64, f64)>,
    style: ShapeStyle,
}

impl Chart {
    fn draw(self, area: &Area<'_>) -> Drawn {
        let mut chart = ChartBuilder::on(area)
            .margin(20)
            .caption(self.caption, (FONT, 28))
            .x_label_area_size(50)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..1.0, 0.0..1.02)?;
        let tick = |value: &f64| format!("{value:.1}");
        chart
            .configure_mesh()
            .x_desc(self.axes[0])
            .y_desc(self.axes[1])
            .label_style((FONT, 18))
            .x_label_formatter(&tick)
            .y_label_formatter(&tick)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for Line { name, points, style } in self.lines {
            let line = chart.draw_series(LineSeries::new(points, style))?;
            if let Some(name) = name {
                line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            }
        }
        chart
            .configure_series_labels()
            .position(self.legend_at)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .label_font((FONT, 18))
            .draw()?;
        Ok(())
    }
}

/// Columns are the labels, each divided by its sum; rows what was found.
fn confusion_matrix(
    area: &Area<'_>,
    matrix: &ConfusionMatrix,
    names: &[String],
    has_background: bool,
) -> Drawn {
    let n = matrix.n_classes() + usize::from(has_background);
    let is_few = n <= MAX_LABELS;
    let (left, top, bottom) = if is_few { (190, 60, 180) } else { (60, 60, 60) };
    area.draw_text(
        "Share of each class's labels (columns) by what was found (rows)",
        &(FONT, 24).into_text_style(area),
        (left, 18),
    )?;
    let size = (SIZE.0 as i32 - left - 20, SIZE.1 as i32 - top - bottom);
    let edge = |idx: usize, length: i32| (idx as i64 * i64::from(length) / n.max(1) as i64) as i32;
    let name = |idx: usize| if idx == matrix.background() { "background".into() } else { short(names, idx) };
    let font_px = (size.1 / n.max(1) as i32 - 4).clamp(8, 16);
    let text = (FONT, font_px).into_text_style(area);
    for truth in 0..n {
        let sum: u64 = (0..n).map(|found| matrix.count(found, truth)).sum();
        for found in 0..n {
            let count = matrix.count(found, truth);
            if count == 0 {
                continue;
            }
            let share = count as f64 / sum as f64;
            let corner = (left + edge(truth, size.0), top + edge(found, size.1));
            let end = (left + edge(truth + 1, size.0), top + edge(found + 1, size.1));
            let shade = |full: u8| (255.0 - share * f64::from(255 - full)) as u8;
            let fill = RGBColor(shade(8), shade(48), shade(107)).filled();
            area.draw(&Rectangle::new([corner, end], fill))?;
            if is_few {
                let ink = if share > 0.5 { WHITE } else { BLACK };
                let at = (corner.0 + 2, (corner.1 + end.1 - font_px) / 2);
                area.draw_text(&format!("{share:.2}"), &text.color(&ink), at)?;
            }
        }
    }
    let frame = [(left, top), (left + size.0, top + size.1)];
    area.draw(&Rectangle::new(frame, BLACK.stroke_width(1)))?;
    if is_few {
        let upright = text.transform(FontTransform::Rotate90);
        for idx in 0..n {
            let middle = |length: i32| (edge(idx, length) + edge(idx + 1, length) - font_px) / 2;
            area.draw_text(&name(idx), &text, (10, top + middle(size.1)))?;
            area.draw_text(&name(idx), &upright, (left + middle(size.0) + font_px, top + size.1 + 6))?;
        }
    }
    Ok(())
}

/// A class's name that fits beside a picture.
fn short(names: &[String], class: usize) -> String {
    shortened(&name_of(names, class), NAME_WIDTH)
}

/// Colours that are easily told apart, by turns.
fn color(idx: usize) -> RGBColor {
    // Golden-ratio steps around the circle of hues keep neighbours far apart.
    let hue = (idx as f64 * 0.618_034).fract();
    let (r, g, b) = HSLColor(hue, 0.75, 0.42).rgb();
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use ferroyolo::Task;
    use ferroyolo::results::Speed;
    use ferroyolo_val::metrics::{Evaluation, Found, Labelled, match_picture};

    use super::*;
    use crate::val::judge::{Matches, Objects, Score};
    use crate::val::summary::Gathered;

    fn summary(n_classes: usize) -> Summary {
        let mut gathered = Gathered::new(n_classes);
        for class in 0..n_classes {
            let found = [Found { class, confidence: 0.9 }, Found { class: 0, confidence: 0.4 }];
            let mut confusion = ConfusionMatrix::new(n_classes);
            confusion.add(class, class);
            confusion.add(0, n_classes);
            let labelled = vec![Labelled::counted(class); 2];
            let coco = match_picture(&found, &labelled, |_, _| 0.8);
            let boxes = Matches { labelled, ultralytics: coco.clone(), coco };
            let found = Vec::new();
            let objects =
                Objects { boxes, shapes: None, confusion, found, n_duplicates: 0, is_unlabelled: false };
            gathered.add(&Score::Objects(Box::new(objects)));
        }
        gathered.finish(Task::Detect, 0, Speed::default())
    }

    #[test]
    fn pictures_are_drawn_for_few_classes_and_many() {
        let dir = tempfile::tempdir().unwrap();
        for n_classes in [1, 3, 30, 90] {
            let names: Vec<String> = (0..n_classes).map(|idx| format!("class {idx}")).collect();
            let saved = save(dir.path(), &summary(n_classes), &names).unwrap();
            assert_eq!(saved.len(), 3);
            for path in saved {
                let image = Image::open(&path).unwrap();
                assert_eq!(image.shape(), [900, 1200]);
                assert!(image.pixels().iter().any(|&value| value < 100), "{} is empty", path.display());
            }
        }
    }

    #[test]
    fn nothing_found_is_drawn_too() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Evaluation::default().finish();
        assert!(metrics.classes.is_empty());
        let summary = Gathered::new(1).finish(Task::Segment, 0, Speed::default());
        assert_eq!(save(dir.path(), &summary, &["a".into()]).unwrap().len(), 5);
        assert!(save(&dir.path().join("absent"), &summary, &["a".into()]).is_err());
    }
}
