//! Medians, ranges and ratios, as JSON and as a table.

use serde::Serialize;

use super::variant::{Compression, TargetName};
use crate::figure::Figure;

/// Figures that have a target value.
pub const IDLE_MEMORY: &str = "memory of an idle connection";
pub const P50_AT_THE_RATE: &str = "commit to delivery at the rate, p50";
pub const P99_AT_THE_RATE: &str = "commit to delivery at the rate, p99";

/// Highest medians at 10,000 connections and 1,000 events per second, on two cores that the service shares with the load.
const AIMS: [(&str, f64); 3] = [
    (IDLE_MEMORY, 25.0),
    (P50_AT_THE_RATE, 10.0),
    (P99_AT_THE_RATE, 50.0),
];

/// All figures of one target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetFigures {
    pub target: TargetName,
    pub compression: Compression,
    pub figures: Vec<Figure>,
}

impl TargetFigures {
    fn figure(&self, what: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.what == what)
    }
}

/// The use of the service as a multiple of the bare server's.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    pub what: &'static str,
    pub compression: Compression,
    pub service_to_bare: f64,
}

/// A highest median, and whether the service meets it.
#[derive(Clone, Debug, Serialize)]
pub struct Aim {
    pub what: &'static str,
    pub unit: &'static str,
    pub compression: Compression,
    pub at_most: f64,
    pub median: f64,
    pub is_kept: bool,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub connections: usize,
    pub rate: usize,
    pub seconds: u64,
    pub soak_seconds: u64,
    /// How the service and its dependencies were built; nginx is the packaged build.
    pub profile: &'static str,
    pub cores: usize,
    pub targets: Vec<TargetFigures>,
    pub ratios: Vec<Ratio>,
    pub aims: Vec<Aim>,
    /// The measurements that failed, each with its reason.
    pub failures: Vec<String>,
}

/// A column of the table.
#[derive(Clone, Copy)]
enum Column<'a> {
    Target(&'a TargetFigures),
    Ratio(Compression),
}

impl Report {
    pub fn add(&mut self, figures: TargetFigures) {
        self.targets.push(figures);
        self.ratios = self.ratios();
        self.aims = self.aims();
    }

    fn of(&self, target: TargetName, compression: Compression) -> Option<&TargetFigures> {
        self.targets
            .iter()
            .find(|figures| figures.target == target && figures.compression == compression)
    }

    fn ratios(&self) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        for compression in [Compression::Off, Compression::On] {
            let (Some(service), Some(bare)) = (
                self.of(TargetName::Service, compression),
                self.of(TargetName::Bare, compression),
            ) else {
                continue;
            };
            for figure in &service.figures {
                // A ratio to something too small to measure means nothing.
                if let Some(least) = bare.figure(figure.what)
                    && least.median > 0.0
                {
                    ratios.push(Ratio {
                        what: figure.what,
                        compression,
                        service_to_bare: figure.median / least.median,
                    });
                }
            }
        }
        ratios
    }

    fn aims(&self) -> Vec<Aim> {
        let services = self
            .targets
            .iter()
            .filter(|figures| figures.target == TargetName::Service);
        services
            .flat_map(|service| {
                AIMS.into_iter().filter_map(|(what, at_most)| {
                    let figure = service.figure(what)?;
                    Some(Aim {
                        what,
                        unit: figure.unit,
                        compression: service.compression,
                        at_most,
                        median: figure.median,
                        is_kept: figure.median <= at_most,
                    })
                })
            })
            .collect()
    }

    /// Markdown: one row per figure, one column per target, then the ratio of service to bare server.
    pub fn table(&self) -> String {
        let columns = self.columns();
        let heads = columns.iter().map(|column| match column {
            Column::Target(figures) => format!(
                " {}, compression {} |",
                figures.target,
                figures.compression.word()
            ),
            Column::Ratio(_) => format!(" {} : {} |", TargetName::Service, TargetName::Bare),
        });
        let mut table = format!(
            "| |{}\n|---|{}\n",
            heads.collect::<String>(),
            "---|".repeat(columns.len())
        );
        for (what, unit) in self.rows() {
            table.push_str(&format!("| {what}, {unit} |"));
            for column in &columns {
                let cell = match *column {
                    Column::Target(figures) => figures.figure(what).map(Figure::cell),
                    Column::Ratio(compression) => self.ratio(what, compression),
                };
                table.push_str(&format!(" {} |", cell.unwrap_or_else(|| "–".to_owned())));
            }
            table.push('\n');
        }
        table
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let mut columns = Vec::new();
        for compression in [Compression::Off, Compression::On] {
            let measured = self
                .targets
                .iter()
                .filter(|figures| figures.compression == compression);
            columns.extend(measured.map(Column::Target));
            if self
                .ratios
                .iter()
                .any(|ratio| ratio.compression == compression)
            {
                columns.push(Column::Ratio(compression));
            }
        }
        columns
    }

    fn rows(&self) -> Vec<(&'static str, &'static str)> {
        let mut rows = Vec::new();
        for figure in self.targets.iter().flat_map(|target| &target.figures) {
            if !rows.contains(&(figure.what, figure.unit)) {
                rows.push((figure.what, figure.unit));
            }
        }
        rows
    }

    fn ratio(&self, what: &str, compression: Compression) -> Option<String> {
        self.ratios
            .iter()
            .find(|ratio| ratio.what == what && ratio.compression == compression)
            .map(|ratio| format!("{:.2}", ratio.service_to_bare))
    }

    /// One line for each aim.
    pub fn aim_lines(&self) -> String {
        let line = |aim: &Aim| {
            format!(
                "{}, compression {}: at most {} {}, measured {:.1}: {}\n",
                aim.what,
                aim.compression.word(),
                aim.at_most,
                aim.unit,
                aim.median,
                if aim.is_kept { "kept" } else { "missed" }
            )
        };
        self.aims.iter().map(line).collect()
    }
}
