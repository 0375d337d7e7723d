//! Claims the readings of a batch a page at a time.

use std::collections::VecDeque;

use uuid::Uuid;

use super::handler_context::QueueContext;
use super::run_limited::JobError;
use crate::admin::batches::{self, Batch, ClaimSource, ClaimStep, Cursor};

/// Index entries that one step reads, at least (and twice a page) and at most: a few milliseconds, or some tens while it
/// passes readings that are held back or have a live job.
const WINDOW_MIN: u16 = 200;
const WINDOW_MAX: u16 = 5_000;

/// The pages of one pass.
pub(super) struct ClaimPages {
    /// Readings that are open and pending come first: the page begins behind this reading. `None` when all were returned.
    open_after: Option<Uuid>,
    sources: VecDeque<(ClaimSource, Cursor)>,
    /// Index entries that the next step reads: doubled while none of them can be claimed.
    window: u16,
    /// Readings claimed so far.
    pub claimed: usize,
    /// Another process ended the batch.
    pub ended: bool,
}

impl ClaimPages {
    pub fn new(sources: &[ClaimSource]) -> ClaimPages {
        ClaimPages {
            open_after: Some(Uuid::nil()),
            sources: sources
                .iter()
                .map(|source| (*source, Cursor::default()))
                .collect(),
            window: WINDOW_MIN,
            claimed: 0,
            ended: false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.open_after.is_none() && self.sources.is_empty()
    }

    /// The next page, empty where a step found nothing.
    pub async fn next(
        &mut self,
        context: &QueueContext,
        batch: &Batch,
    ) -> Result<Vec<Uuid>, JobError> {
        let page = context.sweep_batch_size;
        if let Some(after) = self.open_after {
            let open = batches::open_pending(&context.pool, batch.id, after, page).await?;
            self.open_after = open.last().copied();
            return Ok(open);
        }
        let Some((source, after)) = self.sources.front_mut() else {
            return Ok(Vec::new());
        };
        let step = ClaimStep {
            source: *source,
            after: *after,
            page,
            window: self.window.max(page.saturating_mul(2)),
        };
        let Some(claim) = batches::claim(&context.pool, batch, step).await? else {
            self.sources.clear();
            self.ended = true;
            return Ok(Vec::new());
        };
        match claim.next {
            Some(next) => *after = next,
            None => {
                self.sources.pop_front();
            }
        }
        self.window = if claim.readings.is_empty() {
            (2 * self.window).min(WINDOW_MAX)
        } else {
            WINDOW_MIN
        };
        self.claimed += claim.readings.len();
        Ok(claim.readings)
    }
}
