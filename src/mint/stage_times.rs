//! Records how long after acceptance readings reach a stage of minting.

use chrono::{DateTime, Utc};

use crate::telemetry::{Stage, observe_stage};

/// `accepted`: when each of the readings was accepted.
pub(super) fn observe(stage: Stage, accepted: &[DateTime<Utc>]) {
    let now = Utc::now();
    for accepted_at in accepted {
        observe_stage(stage, (now - accepted_at).to_std().unwrap_or_default());
    }
}
