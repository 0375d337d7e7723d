//! A measured figure: median and range over the rounds.

use serde::Serialize;

/// The results of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub what: &'static str,
    pub unit: &'static str,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// In the order of measurement.
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

    /// The median, and the range over the rounds.
    pub fn cell(&self) -> String {
        let Figure {
            median, min, max, ..
        } = self;
        match self.rounds.len() {
            1 => format!("{median:.1}"),
            _ => format!("{median:.1} ({min:.1}–{max:.1})"),
        }
    }
}

/// A quantile of sorted microseconds, in milliseconds.
pub fn quantile_ms(sorted: &[u32], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted
        .get(index)
        .map_or(f64::NAN, |micros| f64::from(*micros) / 1_000.0)
}
