//! Schedules the end of each stream while its process drains: one after the other, so that the clients do not reconnect all at once.

use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;

/// Ten thousand streams end within ten seconds: a rate of handshakes that another process can take in addition to its work.
const PER_STREAM: Duration = Duration::from_millis(1);
/// Shortest time until a client should reconnect: one that does so at once reaches the draining process again, if no other runs.
const RETRY_AFTER_MIN: Duration = Duration::from_millis(200);
/// The times until clients should reconnect differ by at least this much, even if their streams end at the same moment.
const RETRY_SPREAD_MIN: Duration = Duration::from_millis(800);

/// The times at which streams have to end. Clones share it.
#[derive(Clone, Debug)]
pub struct DrainSchedule {
    draining: CancellationToken,
    /// The end of every stream begins within this time, however many there are.
    spread_max: Duration,
}

impl DrainSchedule {
    /// The drain may take `limit`: a third of it is for the spread, the rest for the close frames and their answers.
    pub fn within(draining: CancellationToken, limit: Duration) -> DrainSchedule {
        DrainSchedule {
            draining,
            spread_max: limit / 3,
        }
    }

    /// Time within which the end of every stream begins.
    pub fn spread_max(&self) -> Duration {
        self.spread_max
    }

    /// Returns when it is this stream's turn to end, with the time after which its client should reconnect.
    pub async fn wait_for_turn(&self, hub: &Hub) -> Duration {
        self.draining.cancelled().await;
        let spread = (PER_STREAM * hub.open_streams()).min(self.spread_max);
        sleep(spread.mul_f64(random_share())).await;
        RETRY_AFTER_MIN + spread.max(RETRY_SPREAD_MIN).mul_f64(random_share())
    }
}

fn random_share() -> f64 {
    rand::rng().random_range(0.0..1.0)
}
