//! Medians and ranges, as JSON and as a table.

use serde::Serialize;

/// What one measurement gave in its rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub what: &'static str,
    pub unit: &'static str,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub rounds: Vec<f64>,
}

impl Figure {
    pub fn of(what: &'static str, unit: &'static str, rounds: Vec<f64>) -> Figure {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Figure {
            what,
            unit,
            median: at(sorted.len() / 2),
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
            rounds,
        }
    }
}

/// All figures of one target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetFigures {
    pub target: String,
    /// `off`, or `on` when the server agreed to it.
    pub compression: &'static str,
    pub figures: Vec<Figure>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub connections: usize,
    pub rate: usize,
    pub seconds: u64,
    pub soak_seconds: u64,
    /// How our own code and its dependencies were built; `peers` are as their packages have them.
    pub profile: &'static str,
    pub cores: usize,
    pub targets: Vec<TargetFigures>,
}

/// The share of sorted values below it, milliseconds from microseconds.
pub fn quantile_ms(sorted: &[u32], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
}

impl Report {
    /// Markdown: one row a figure, one column a target.
    pub fn table(&self) -> String {
        let mut rows: Vec<(&str, &str)> = Vec::new();
        for target in &self.targets {
            for figure in &target.figures {
                if !rows.contains(&(figure.what, figure.unit)) {
                    rows.push((figure.what, figure.unit));
                }
            }
        }
        let heads = self
            .targets
            .iter()
            .map(|target| format!(" {}, compression {} |", target.target, target.compression));
        let mut table = format!(
            "| |{}\n|---|{}\n",
            heads.collect::<String>(),
            "---|".repeat(self.targets.len())
        );
        for (what, unit) in rows {
            table.push_str(&format!("| {what}, {unit} |"));
            for target in &self.targets {
                let found = target.figures.iter().find(|figure| figure.what == what);
                table.push_str(&found.map_or(" – |".to_owned(), |figure| {
                    let (median, min, max) = (figure.median, figure.min, figure.max);
                    if figure.rounds.len() == 1 {
                        format!(" {median:.1} |")
                    } else {
                        format!(" {median:.1} ({min:.1}–{max:.1}) |")
                    }
                }));
            }
            table.push('\n');
        }
        table
    }
}
