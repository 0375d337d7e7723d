//! Tests that dashboards, rules and rule tests use every metric of [`names`], and none that does not exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::names::{self, Kind};

/// Suffixes of the series that the exporter derives from a histogram.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no .{extension} in {}", folder.display());
    files
}

/// All words of the file that look like one of our metrics. Recording rules begin with `gridtokenx:`, so they are left out.
fn metrics_named_in(file: &Path) -> BTreeSet<String> {
    fs::read_to_string(file)
        .unwrap()
        .split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("gridtokenx_"))
        .map(str::to_owned)
        .collect()
}

/// The names of all series in Prometheus.
fn series_names() -> BTreeSet<String> {
    names::ALL
        .iter()
        .flat_map(|metric| match metric.kind {
            Kind::Counter | Kind::Gauge => vec![metric.name.to_owned()],
            Kind::Histogram => HISTOGRAM_SUFFIXES
                .iter()
                .map(|suffix| format!("{}{suffix}", metric.name))
                .collect(),
        })
        .collect()
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let shown: BTreeSet<String> = files("dashboards", "json")
        .iter()
        .flat_map(|file| metrics_named_in(file))
        .collect();
    for metric in names::ALL {
        let is_shown = match metric.kind {
            Kind::Counter | Kind::Gauge => shown.contains(metric.name),
            Kind::Histogram => HISTOGRAM_SUFFIXES
                .iter()
                .any(|suffix| shown.contains(&format!("{}{suffix}", metric.name))),
        };
        assert!(
            is_shown,
            "{} is on no dashboard: add a panel in dashboards/boards/, then run dashboards/generate.py",
            metric.name
        );
    }
}

#[test]
fn dashboards_and_rules_name_no_metric_that_does_not_exist() {
    let exist = series_names();
    let mut files_read = files("dashboards", "json");
    files_read.extend(files("dashboards/prometheus", "yml"));
    for file in files_read {
        for name in metrics_named_in(&file) {
            assert!(
                exist.contains(&name),
                "{} names {name}, which is not in src/telemetry/names.rs",
                file.display()
            );
        }
    }
}
