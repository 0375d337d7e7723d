//! How streams leave when their process ends: one after the other, so that their clients do not come back all at once.

use std::time::Duration;

use rand::Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;

/// Ten thousand leave within ten seconds: as many handshakes a second as another process takes beside its work.
const PER_STREAM: Duration = Duration::from_millis(1);
/// A client that comes back at once finds the process that it left, where there is no other.
const RETRY_AFTER_LEAST: Duration = Duration::from_millis(200);
/// Clients that leave within one moment are told times of at least this spread.
const RETRY_SPREAD_LEAST: Duration = Duration::from_millis(800);

/// When a stream has to leave; a clone is the same.
#[derive(Clone, Debug)]
pub struct DrainSchedule {
    draining: CancellationToken,
    /// All are asked to leave within this, however many they are.
    spread_max: Duration,
}

impl DrainSchedule {
    /// The drain may take `limit`: a third of it goes to the spread, so that farewells have the rest.
    pub fn within(draining: CancellationToken, limit: Duration) -> DrainSchedule {
        DrainSchedule {
            draining,
            spread_max: limit / 3,
        }
    }

    /// Within which all are asked to leave.
    pub fn spread_max(&self) -> Duration {
        self.spread_max
    }

    /// Returns when it is this stream's turn to leave, with the time after which its client is to come back.
    pub async fn wait_for_turn(&self, hub: &Hub) -> Duration {
        self.draining.cancelled().await;
        let spread = (PER_STREAM * hub.open_streams()).min(self.spread_max);
        sleep(spread.mul_f64(portion())).await;
        RETRY_AFTER_LEAST + spread.max(RETRY_SPREAD_LEAST).mul_f64(portion())
    }
}

fn portion() -> f64 {
    rand::rng().random_range(0.0..1.0)
}
