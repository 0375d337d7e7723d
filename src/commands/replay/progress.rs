//! Shows how far the replay is: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::reading_tracker::{Counts, ReadingTracker};

const REDRAW_PERIOD: Duration = Duration::from_millis(200);
/// Often enough to see progress, seldom enough for a log file.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Writes to stderr: stdout is for the report.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `readings`: how many the replay has.
    pub fn new(readings: u64) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { bar: None };
        }
        let bar = ProgressBar::with_draw_target(Some(readings), ProgressDrawTarget::stderr());
        // The bar counts finalized readings: nothing can undo those.
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress { bar: Some(bar) }
    }

    /// Shows the counts until the caller drops this.
    pub async fn show(&self, tracker: &ReadingTracker, readings: u64) {
        let period = if self.bar.is_some() {
            REDRAW_PERIOD
        } else {
            LINE_PERIOD
        };
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let counts = tracker.counts();
            match &self.bar {
                Some(bar) => {
                    bar.set_position(counts.finalized);
                    bar.set_message(summary(counts, readings));
                }
                None => eprintln!("{}", summary(counts, readings)),
            }
        }
    }

    /// Prints a separate line.
    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Leaves the last counts on the screen.
    pub fn close(&self, counts: Counts, readings: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(counts.finalized);
                bar.abandon_with_message(summary(counts, readings));
            }
            None => eprintln!("{}", summary(counts, readings)),
        }
    }
}

fn summary(counts: Counts, readings: u64) -> String {
    let mut summary = format!(
        "{} of {readings} submitted, {} minted, {} finalized",
        counts.submitted, counts.minted, counts.finalized
    );
    let refused = counts.submitted - counts.accepted;
    if refused > 0 {
        summary.push_str(&format!(", {refused} refused"));
    }
    if counts.failed > 0 {
        summary.push_str(&format!(", {} failed", counts.failed));
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_went_wrong_only_when_something_did() {
        let mut counts = Counts {
            submitted: 5,
            accepted: 5,
            minted: 4,
            finalized: 3,
            ..Counts::default()
        };
        assert_eq!(
            summary(counts, 9),
            "5 of 9 submitted, 4 minted, 3 finalized"
        );
        counts.accepted = 4;
        counts.failed = 1;
        assert_eq!(
            summary(counts, 9),
            "5 of 9 submitted, 4 minted, 3 finalized, 1 refused, 1 failed"
        );
    }
}
