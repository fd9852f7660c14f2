//! The metrics of all pictures, as they are printed.

use std::collections::BTreeMap;

use ferroyolo::Task;
use ferroyolo::results::Speed;
use ferroyolo_val::metrics::{
    AveragePrecision, ClassMetrics, ConfusionMatrix, Evaluation, Labelled, Metrics, PixelCounts,
    PixelMetrics, TopK, TopKMetrics,
};
use serde_json::{Map, Value, json};

use super::judge::{Matches, Score};

/// Columns of the table for the name of a class.
const NAME_WIDTH: usize = 22;

/// Everything that was measured.
pub struct Summary {
    /// Pictures that could be read, with their labels.
    pub n_pictures: usize,
    /// Of them those without a label file.
    pub n_unlabelled: usize,
    /// Lines of label files that repeat another.
    pub n_duplicates: usize,
    /// Pictures that could not be read, or whose labels could not.
    pub n_failed: usize,
    /// Mean time of a picture.
    pub speed: Speed,
    /// What was found out.
    pub kind: Kind,
}

/// Metrics by what the network finds.
pub enum Kind {
    /// Objects: what is compared, and which classes are taken for which.
    Objects(Vec<Compared>, ConfusionMatrix),
    /// Classes of pictures: of all, by class, and which classes are taken for which.
    Classes(TopKMetrics, Vec<(usize, TopKMetrics)>, ConfusionMatrix),
    /// Classes of pixels.
    Pixels(PixelMetrics),
}

/// The metrics of one way to compare objects.
pub struct Compared {
    /// What is compared: `box`, `mask` or `pose`.
    pub what: &'static str,
    /// By COCO's rules.
    pub coco: Metrics,
    /// From matches made as Ultralytics makes them; of the averages only [`Metrics::ap_of_lines`] is told.
    pub ultralytics: Metrics,
}

/// Scores as they are gathered, in the order of the pictures.
pub struct Gathered {
    boxes: Evaluations,
    shapes: Evaluations,
    confusion: ConfusionMatrix,
    top_k: TopK,
    pixels: PixelCounts,
    n_pictures: usize,
    n_unlabelled: usize,
    n_duplicates: usize,
}

#[derive(Default)]
struct Evaluations {
    coco: Evaluation,
    ultralytics: Evaluation,
}

impl Evaluations {
    fn add(&mut self, Matches { labelled, coco, ultralytics }: &Matches) {
        self.coco.add(coco, labelled);
        let all: Vec<_> = labelled.iter().map(|label| Labelled::counted(label.class)).collect();
        self.ultralytics.add(ultralytics, &all);
    }

    fn finish(self, what: &'static str) -> Compared {
        Compared { what, coco: self.coco.finish(), ultralytics: self.ultralytics.finish() }
    }
}

impl Gathered {
    /// Nothing yet, of a data set of `n_classes`.
    pub fn new(n_classes: usize) -> Self {
        Self {
            boxes: Evaluations::default(),
            shapes: Evaluations::default(),
            confusion: ConfusionMatrix::new(n_classes),
            top_k: TopK::default(),
            pixels: PixelCounts::new(n_classes),
            n_pictures: 0,
            n_unlabelled: 0,
            n_duplicates: 0,
        }
    }

    /// Adds a picture.
    pub fn add(&mut self, score: &Score) {
        self.n_pictures += 1;
        match score {
            Score::Objects(objects) => {
                self.boxes.add(&objects.boxes);
                if let Some(shapes) = &objects.shapes {
                    self.shapes.add(shapes);
                }
                self.confusion.merge(&objects.confusion);
                self.n_unlabelled += usize::from(objects.is_unlabelled);
                self.n_duplicates += objects.n_duplicates;
            }
            Score::Class(truth, answers) => {
                self.top_k.add(*truth, answers);
                self.confusion.add(answers.first().copied().unwrap_or(self.confusion.background()), *truth);
            }
            Score::Pixels(counts) => self.pixels.merge(counts),
        }
    }

    /// Works the metrics out.
    pub fn finish(self, task: Task, n_failed: usize, speed: Speed) -> Summary {
        let kind = match task {
            Task::Classify => Kind::Classes(self.top_k.all(), self.top_k.by_class(), self.confusion),
            Task::Semantic => Kind::Pixels(self.pixels.finish()),
            _ => {
                let mut all = vec![self.boxes.finish("box")];
                match task {
                    Task::Segment => all.push(self.shapes.finish("mask")),
                    Task::Pose => all.push(self.shapes.finish("pose")),
                    _ => {}
                }
                Kind::Objects(all, self.confusion)
            }
        };
        Summary {
            n_pictures: self.n_pictures,
            n_unlabelled: self.n_unlabelled,
            n_duplicates: self.n_duplicates,
            n_failed,
            speed,
            kind,
        }
    }
}

impl Summary {
    /// All of it as JSON, in the order in which people read it.
    pub fn to_json(&self, names: &[String]) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("images".into(), json!(self.n_pictures));
        object.insert("failed".into(), json!(self.n_failed));
        object.insert("speed_ms".into(), speed_json(&self.speed));
        let name = |class: usize| name_of(names, class);
        match &self.kind {
            Kind::Objects(all, _) => {
                object.insert("unlabelled".into(), json!(self.n_unlabelled));
                object.insert("duplicate_labels".into(), json!(self.n_duplicates));
                object.insert(
                    "instances".into(),
                    json!(all.first().map_or(0, |compared| compared.coco.n_instances)),
                );
                let mut classes: BTreeMap<usize, Map<String, Value>> = BTreeMap::new();
                for Compared { what, coco, ultralytics } in all {
                    let by_coco = Rates { precision: coco.precision, recall: coco.recall, ap: &coco.ap };
                    let mut mean = both(
                        Some(&by_coco),
                        &Rates {
                            precision: ultralytics.precision,
                            recall: ultralytics.recall,
                            ap: &ultralytics.ap_of_lines,
                        },
                    );
                    mean.insert("confidence".into(), rounded(coco.confidence));
                    object.insert((*what).into(), mean.into());
                    // Ultralytics knows no labels that are ignored, and so has all classes.
                    for of in &ultralytics.classes {
                        let entry = classes.entry(of.class).or_insert_with(|| {
                            let mut entry = Map::new();
                            entry.insert("class".into(), json!(of.class));
                            entry.insert("name".into(), json!(name(of.class)));
                            entry.insert("images".into(), json!(of.n_pictures));
                            entry.insert("instances".into(), json!(of.n_instances));
                            entry
                        });
                        let by_coco = coco.of_class(of.class).map(|of| Rates {
                            precision: of.precision,
                            recall: of.recall,
                            ap: &of.ap,
                        });
                        let by_lines =
                            Rates { precision: of.precision, recall: of.recall, ap: &of.ap_of_lines };
                        entry.insert((*what).into(), both(by_coco.as_ref(), &by_lines).into());
                    }
                }
                object.insert("classes".into(), classes.into_values().collect());
            }
            Kind::Classes(all, by_class, _) => {
                object.insert("top1".into(), rounded(all.top1));
                object.insert("top5".into(), rounded(all.top5));
                let class = |(class, of): &(usize, TopKMetrics)| {
                    json!({"class": class, "name": name(*class), "images": of.n_pictures,
                           "top1": rounded(of.top1), "top5": rounded(of.top5)})
                };
                object.insert("classes".into(), by_class.iter().map(class).collect());
            }
            Kind::Pixels(metrics) => {
                object.insert("miou".into(), rounded(metrics.mean_iou));
                object.insert("pixel_accuracy".into(), rounded(metrics.accuracy));
                object.insert("pixels".into(), json!(metrics.n_pixels));
                let class = |(class, (n_pixels, iou)): (usize, &(u64, Option<f64>))| json!({"class": class, "name": name(class), "pixels": n_pixels, "iou": iou.map(rounded)});
                object.insert("classes".into(), metrics.classes.iter().enumerate().map(class).collect());
            }
        }
        object
    }

    /// The table that is printed, and below it what does not fit into it.
    pub fn table(&self, names: &[String]) -> String {
        let name = |class: usize| name_of(names, class);
        let mut lines = Vec::new();
        match &self.kind {
            Kind::Objects(all, _) => {
                let mut head = format!("{:>22}{:>11}{:>11}", "Class", "Images", "Instances");
                for compared in all {
                    let first = format!("{}(P", capitalised(compared.what));
                    head += &format!("{first:>11}{:>11}{:>11}{:>11}", "R", "mAP50", "mAP50-95)");
                }
                lines.push(head);
                let values = |p: f64, r: f64, ap: &AveragePrecision| {
                    format!("{p:>11.3}{r:>11.3}{:>11.3}{:>11.3}", ap.ap50(), ap.mean())
                };
                let of_class = |of: Option<&ClassMetrics>| match of {
                    Some(of) => values(of.precision, of.recall, &of.ap),
                    None => format!("{:>11}", "-").repeat(4),
                };
                let n_instances = all.first().map_or(0, |compared| compared.coco.n_instances);
                let means = all.iter().map(|of| values(of.coco.precision, of.coco.recall, &of.coco.ap));
                lines.push(row("all", self.n_pictures, n_instances) + &means.collect::<String>());
                // Of boxes no label is ignored, and so they have all classes.
                let classes = all.first().map_or(&[][..], |compared| &compared.coco.classes);
                for of in classes {
                    let rates: String =
                        all.iter().map(|compared| of_class(compared.coco.of_class(of.class))).collect();
                    lines.push(row(&name(of.class), of.n_pictures, of.n_instances) + &rates);
                }
                for Compared { what, coco, ultralytics } in all {
                    let (ap, lines_ap) = (&coco.ap, &ultralytics.ap_of_lines);
                    lines.push(format!(
                        "{what}: mAP50 {:.4}, mAP75 {:.4}, mAP50-95 {:.4} by COCO's rules; {:.4}, {:.4}, {:.4} as \
                         Ultralytics computes it; P and R at confidence {:.3}",
                        ap.ap50(),
                        ap.ap75(),
                        ap.mean(),
                        lines_ap.ap50(),
                        lines_ap.ap75(),
                        lines_ap.mean(),
                        coco.confidence
                    ));
                }
            }
            Kind::Classes(all, by_class, _) => {
                lines.push(format!("{:>22}{:>11}{:>11}{:>11}", "Class", "Images", "top1", "top5"));
                let row = |name: &str, of: &TopKMetrics| {
                    format!(
                        "{:>22}{:>11}{:>11.3}{:>11.3}",
                        shortened(name, NAME_WIDTH),
                        of.n_pictures,
                        of.top1,
                        of.top5
                    )
                };
                lines.push(row("all", all));
                lines.extend(by_class.iter().map(|(class, of)| row(&name(*class), of)));
            }
            Kind::Pixels(metrics) => {
                lines.push(format!("{:>22}{:>14}{:>11}", "Class", "Pixels", "IoU"));
                lines.push(format!("{:>22}{:>14}{:>11.3}", "all", metrics.n_pixels, metrics.mean_iou));
                for (class, (n_pixels, iou)) in metrics.classes.iter().enumerate() {
                    let iou = iou.map_or_else(|| "-".into(), |iou| format!("{iou:.3}"));
                    lines.push(format!("{:>22}{n_pixels:>14}{iou:>11}", shortened(&name(class), NAME_WIDTH)));
                }
                lines.push(format!("pixel accuracy {:.4}", metrics.accuracy));
            }
        }
        lines.join("\n")
    }

    /// One line on the pictures: how many, and what was odd about them.
    pub fn told(&self) -> String {
        let mut parts = vec![format!("{} images", self.n_pictures)];
        let odd = [
            (self.n_unlabelled, "without a label file"),
            (self.n_duplicates, "repeated label lines dropped"),
            (self.n_failed, "failed and left out"),
        ];
        parts.extend(odd.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
        let Speed { preprocess_ms, inference_ms, postprocess_ms } = self.speed;
        format!(
            "{}; {preprocess_ms:.1}ms preprocess, {inference_ms:.1}ms inference, {postprocess_ms:.1}ms postprocess per image",
            parts.join(", ")
        )
    }
}

fn row(name: &str, n_pictures: usize, n_instances: usize) -> String {
    format!("{:>22}{n_pictures:>11}{n_instances:>11}", shortened(name, NAME_WIDTH))
}

/// What a class is called: its index, if it has no name.
pub fn name_of(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// A name that fits into so many columns.
pub fn shortened(name: &str, n_columns: usize) -> String {
    name.chars().filter(|c| !c.is_control()).take(n_columns).collect()
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// How right detections are, by one set of rules.
struct Rates<'a> {
    precision: f64,
    recall: f64,
    ap: &'a AveragePrecision,
}

/// The rates as JSON, null where no label counts.
fn rates_json(rates: Option<&Rates<'_>>) -> Map<String, Value> {
    let names = ["precision", "recall", "map50", "map75", "map50_95"];
    let values = rates.map(|of| [of.precision, of.recall, of.ap.ap50(), of.ap.ap75(), of.ap.mean()]);
    let value = |idx: usize| values.map_or(Value::Null, |values| rounded(values[idx]));
    names.iter().enumerate().map(|(idx, name)| ((*name).to_owned(), value(idx))).collect()
}

/// The rates by COCO's rules, and in it those by Ultralytics'.
fn both(coco: Option<&Rates<'_>>, ultralytics: &Rates<'_>) -> Map<String, Value> {
    let mut object = rates_json(coco);
    object.insert("ultralytics".into(), rates_json(Some(ultralytics)).into());
    object
}

/// Five decimals, finer than any data set can tell.
fn rounded(value: f64) -> Value {
    json!((value * 1e5).round() / 1e5)
}

fn speed_json(speed: &Speed) -> Value {
    let rounded = |ms: f64| json!((ms * 1e3).round() / 1e3);
    json!({"preprocess": rounded(speed.preprocess_ms), "inference": rounded(speed.inference_ms),
           "postprocess": rounded(speed.postprocess_ms)})
}

#[cfg(test)]
mod tests {
    use ferroyolo_val::metrics::{Found, match_picture};

    use super::*;
    use crate::val::judge::Objects;

    fn names() -> Vec<String> {
        ["cat", "dog\u{1b}[2J", "a name that is longer than its column"].map(str::to_owned).to_vec()
    }

    fn summary(task: Task, scores: &[Score]) -> Summary {
        let mut gathered = Gathered::new(3);
        scores.iter().for_each(|score| gathered.add(score));
        gathered.finish(task, 1, Speed::default())
    }

    #[test]
    fn classifiers() {
        let summary = summary(Task::Classify, &[Score::Class(0, vec![0, 1]), Score::Class(1, vec![2, 1])]);
        let json = Value::from(summary.to_json(&names()));
        assert_eq!((&json["top1"], &json["top5"], &json["failed"]), (&json!(0.5), &json!(1.0), &json!(1)));
        assert_eq!(json["classes"][1]["top5"], json!(1.0));
        let table = summary.table(&names());
        assert_eq!(table.lines().count(), 4);
        assert!(!table.contains('\u{1b}'));
        assert!(summary.told().starts_with("2 images, 1 failed and left out; "));
    }

    #[test]
    fn pixels() {
        let mut counts = PixelCounts::new(3);
        counts.add(&[0, 0, 1], &[0, 1, 1]);
        let summary = summary(Task::Semantic, &[Score::Pixels(counts)]);
        let json = Value::from(summary.to_json(&names()));
        assert_eq!((&json["miou"], &json["classes"][2]["iou"]), (&json!(0.5), &Value::Null));
        assert!(summary.table(&names()).contains("pixel accuracy 0.6667"));
    }

    /// Of the first class no label counts by COCO's rules of poses.
    #[test]
    fn classes_without_a_label_that_counts_have_no_rates() {
        let found = [Found { class: 1, confidence: 0.9 }];
        let matched = |is_ignored: bool| {
            let labelled = vec![Labelled { class: 0, is_ignored }, Labelled::counted(1)];
            let coco = match_picture(&found, &labelled, |_, _| 1.0);
            Matches { ultralytics: coco.clone(), labelled, coco }
        };
        let objects = Objects {
            boxes: matched(false),
            shapes: Some(matched(true)),
            confusion: ConfusionMatrix::new(3),
            found: Vec::new(),
            n_duplicates: 0,
            is_unlabelled: false,
        };
        let summary = summary(Task::Pose, &[Score::Objects(Box::new(objects))]);
        let json = Value::from(summary.to_json(&names()));
        let [first, second] = [0, 1].map(|idx| &json["classes"][idx]["pose"]);
        assert_eq!((&first["map50"], &first["ultralytics"]["map50"]), (&Value::Null, &json!(0.0)));
        assert_eq!((&second["map50"], &json["pose"]["map50"]), (&json!(1.0), &json!(1.0)));
        assert_eq!(json["box"]["map50"], json!(0.5));
        let table = summary.table(&names());
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2][7..], ["-"; 4]);
        assert_eq!(rows[3][7..], ["1.000"; 4]);
    }

    #[test]
    fn no_pictures_make_no_panic() {
        for task in [Task::Detect, Task::Segment, Task::Pose, Task::Obb, Task::Classify, Task::Semantic] {
            let summary = summary(task, &[]);
            assert!(summary.table(&names()).lines().count() >= 2);
            assert!(!summary.to_json(&names()).is_empty());
        }
    }
}
