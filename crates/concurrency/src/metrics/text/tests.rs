//! A page is read back by the format's rules, which a small parser knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::super::Counters;
use super::*;

/// A family as it was read: its kind, and its samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

/// Reads a page, or says which rule it breaks.
fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut now = String::new();
    let mut has_type = false;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(format!("no help: {line}"))?;
            if help.is_empty() || families.insert(name.to_owned(), Family::default()).is_some() {
                return Err(format!("described twice, or not at all: {line}"));
            }
            (now, has_type) = (name.to_owned(), false);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
            if name != now || has_type || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("not the type of the family described before: {line}"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(format!("the names of counters, and only they, end in _total: {line}"));
            }
            families.get_mut(&now).expect("it was described").kind = kind.to_owned();
            has_type = true;
        } else {
            let (name, labels, value) = parse_sample(line)?;
            let family = families.get_mut(&now).filter(|_| has_type).ok_or(format!("no family: {line}"))?;
            let of_histogram = ["_bucket", "_sum", "_count"].map(|suffix| format!("{now}{suffix}"));
            let is_own = if family.kind == "histogram" { of_histogram.contains(&name) } else { name == now };
            if !is_own || family.samples.insert((name, labels), value).is_some() {
                return Err(format!("of another family, or told twice: {line}"));
            }
        }
    }
    Ok(families)
}

fn parse_sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let bad = || format!("no sample: {line}");
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (name, rest) = line.split_once('{').ok_or_else(bad)?;
    let mut labels = BTreeMap::new();
    let mut chars = rest.chars();
    let value = loop {
        let key: String = chars.by_ref().take_while(|&c| c != '=').collect();
        if !is_name(&key) || chars.next() != Some('"') {
            return Err(bad());
        }
        let mut text = String::new();
        loop {
            match chars.next().ok_or_else(bad)? {
                '"' => break,
                '\\' => text.push(match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('"' | '\\')) => c,
                    _ => return Err(bad()),
                }),
                c => text.push(c),
            }
        }
        if labels.insert(key, text).is_some() {
            return Err(bad());
        }
        match chars.next() {
            Some(',') => {}
            Some('}') => break chars.as_str().strip_prefix(' ').ok_or_else(bad)?,
            _ => return Err(bad()),
        }
    };
    let value = value.parse().map_err(|_| bad())?;
    if is_name(name) { Ok((name.to_owned(), labels, value)) } else { Err(bad()) }
}

/// A snapshot of a queue of which one more was completed than of the one before.
fn queue(name: &str, n_completed: u64) -> Metrics {
    let mut counters = Counters { accepted: n_completed, completed: n_completed, ..Counters::default() };
    for took_ms in 0..n_completed {
        counters.infer.observe(Duration::from_millis(took_ms));
    }
    counters.restarts.insert("crashed", n_completed);
    counters.snapshot(name, [0, 0], super::super::Workers::default())
}

fn lock(name: &str, n_waiting: usize) -> LockMetrics {
    LockMetrics { name: name.to_owned(), lock_wait: Histogram::default(), n_waiting }
}

fn value_of(families: &BTreeMap<String, Family>, name: &str, key: &str, label: &str) -> Option<f64> {
    let labels = BTreeMap::from([(key.to_owned(), label.to_owned())]);
    let family = families.get(&format!("ferroyolo_{name}"))?;
    family.samples.get(&(format!("ferroyolo_{name}"), labels)).copied()
}

#[test]
fn each_family_is_described_once_however_many_there_are() {
    let page = (0..3_usize).fold(Page::new(), |page, n| {
        page.queue(queue(&format!("q{n}"), n as u64)).lock(lock(&format!("l{n}"), n))
    });
    let families = parse(&page.to_string()).unwrap();
    for n in 0..3_usize {
        let completed = value_of(&families, "jobs_completed_total", "queue", &format!("q{n}"));
        let waiting = value_of(&families, "lock_waiting", "lock", &format!("l{n}"));
        assert_eq!((completed, waiting), (Some(n as f64), Some(n as f64)));
    }
    // A snapshot alone is a page, too; two one after the other are none.
    let alone = queue("q", 1).to_string();
    assert_eq!(parse(&alone).unwrap().len(), 14);
    assert_eq!(parse(&lock("l", 1).to_string()).unwrap().len(), 2);
    assert!(parse(&(alone.clone() + &alone)).is_err());
    assert_eq!(Page::new().to_string(), "");
}

#[test]
fn names_that_repeat_are_told_apart() {
    let names = ["a", "a", "a-2", "a", "b"];
    let page = names.iter().zip(1..).fold(Page::new(), |page, (name, n)| page.queue(queue(name, n)));
    let families = parse(&page.to_string()).unwrap();
    for (name, n) in ["a", "a-3", "a-2", "a-4", "b"].iter().zip(1..) {
        assert_eq!(value_of(&families, "jobs_completed_total", "queue", name), Some(f64::from(n)), "{name}");
    }
}

#[test]
fn histograms_end_with_all_there_is() {
    let families = parse(&queue("q", 7).to_string()).unwrap();
    let family = &families["ferroyolo_infer_seconds"];
    let of = |le: &str| {
        let labels = [("queue", "q"), ("le", le)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        family.samples[&("ferroyolo_infer_seconds_bucket".to_owned(), labels.into())]
    };
    let count = value_of(&families, "infer_seconds", "queue", "q");
    assert_eq!(count, None, "a histogram has no sample of its own name");
    assert_eq!((of("0.001"), of("0.005"), of("+Inf")), (2.0, 6.0, 7.0));
    let labels = BTreeMap::from([("queue".to_owned(), "q".to_owned())]);
    let sum = family.samples[&("ferroyolo_infer_seconds_sum".to_owned(), labels.clone())];
    assert!((sum - 0.021).abs() < 1e-12, "{sum}");
    assert_eq!(family.samples[&("ferroyolo_infer_seconds_count".to_owned(), labels)], 7.0);
}

proptest! {
    #[test]
    fn any_names_make_a_page(
        names in prop::collection::vec("[a\"\\\\\n{},= é-]{0,4}|a|a-2", 0..6),
        locks in prop::collection::vec("[\\PC\n]{0,3}", 0..4),
    ) {
        let page = names.iter().fold(Page::new(), |page, name| page.queue(queue(name, 1)));
        let page = locks.iter().fold(page, |page, name| page.lock(lock(name, 1)));
        let families = parse(&page.to_string()).map_err(TestCaseError::fail)?;
        let labels = |family: &str, key: &str| -> BTreeSet<String> {
            let samples = families.get(family).into_iter().flat_map(|family| family.samples.keys());
            samples.map(|(_, labels)| labels[key].clone()).collect()
        };
        let found = labels("ferroyolo_queue_depth", "queue");
        prop_assert_eq!(found.len(), names.len());
        prop_assert!(names.iter().all(|name| found.contains(name)));
        let found = labels("ferroyolo_lock_waiting", "lock");
        prop_assert_eq!(found.len(), locks.len());
        prop_assert!(locks.iter().all(|name| found.contains(name)));
    }
}
