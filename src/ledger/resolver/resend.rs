//! Sends transactions that the chain does not show again: the same bytes (rule 2).
//!
//! It runs beside the status rounds, so that an endpoint which hangs on a send does not delay the confirmations of the others.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::log_on_change::LogOnChange;
use super::open_transactions::{self, OpenTransaction};
use crate::chain::Endpoints;
use crate::db::within;
use crate::domain::MintNumber;
use crate::ledger::error::LedgerError;
use crate::ledger::send::send_to_all;

/// The minter has just sent what is younger; an older transaction that is not seen is sent again, this often.
const RESEND_EVERY: Duration = Duration::from_secs(2);
/// Concurrent re-sends.
const RESENDS_AT_ONCE: usize = 16;
/// Blocks above a last valid height after which the bytes are not sent any more: no fork and no lagging node brings it back so far.
const EXPIRED_BLOCKS: u64 = 64;
/// Re-sends that one round queues at most: the rest follows in the next.
const RESENDS_PER_ROUND: usize = 128;

/// Chooses which unseen transactions are due for a re-send. Losing its memory costs no more than an early re-send.
pub struct ResendQueue {
    /// Of the last [`RESEND_EVERY`].
    sent_at: HashMap<MintNumber, Instant>,
    due: mpsc::Sender<Vec<OpenTransaction>>,
}

impl ResendQueue {
    /// The queue, and the end that a [`Resender`] drains. One batch waits while another is being sent.
    pub fn new() -> (ResendQueue, mpsc::Receiver<Vec<OpenTransaction>>) {
        let (due, queued) = mpsc::channel(1);
        let sent_at = HashMap::new();
        (ResendQueue { sent_at, due }, queued)
    }

    /// Another queue before the same [`Resender`].
    pub fn beside(&self) -> ResendQueue {
        ResendQueue {
            sent_at: HashMap::new(),
            due: self.due.clone(),
        }
    }

    /// Queues those that are due. While earlier ones are still being sent, these wait for a later round. What expired on every
    /// endpoint that answers is not sent any more.
    pub fn offer(&mut self, unseen: Vec<OpenTransaction>, endpoints: &Endpoints) {
        self.sent_at
            .retain(|_, sent_at| sent_at.elapsed() < RESEND_EVERY);
        let height = endpoints.lowest_height();
        let due: Vec<OpenTransaction> = unseen
            .into_iter()
            .filter(|open| !has_expired(open, height) && self.is_due(open))
            .take(RESENDS_PER_ROUND)
            .collect();
        if due.is_empty() {
            return;
        }
        let numbers: Vec<MintNumber> = due.iter().map(|open| open.number).collect();
        if self.due.try_send(due).is_ok() {
            let now = Instant::now();
            self.sent_at
                .extend(numbers.into_iter().map(|number| (number, now)));
        }
    }

    fn is_due(&self, open: &OpenTransaction) -> bool {
        open.age() >= RESEND_EVERY && !self.sent_at.contains_key(&open.number)
    }
}

/// `lowest_height`: of the endpoints that answer.
fn has_expired(open: &OpenTransaction, lowest_height: Option<u64>) -> bool {
    lowest_height.is_some_and(|height| height > open.last_valid_block_height + EXPIRED_BLOCKS)
}

/// Sends what the status rounds have queued.
pub struct Resender {
    pub pool: PgPool,
    pub endpoints: Endpoints,
    /// Bounds one transaction of the database.
    pub limit: Duration,
}

impl Resender {
    /// Sends each batch as soon as it is queued.
    pub async fn run(self, mut queued: mpsc::Receiver<Vec<OpenTransaction>>) {
        let mut log = LogOnChange::new("re-sends");
        while let Some(due) = queued.recv().await {
            log.note(self.send(&due).await.map_err(LedgerError::from));
        }
    }

    /// Sends one batch to all endpoints, and counts the sends in the ledger.
    async fn send(&self, due: &[OpenTransaction]) -> sqlx::Result<()> {
        let (pool, limit) = (&self.pool, self.limit);
        let numbers: Vec<MintNumber> = due.iter().map(|open| open.number).collect();
        let stored = within(limit, open_transactions::signed_bytes(pool, &numbers)).await?;
        let signed_bytes: HashMap<MintNumber, Vec<u8>> = stored.into_iter().collect();
        let sends = due.iter().filter_map(|open| {
            let bytes = signed_bytes.get(&open.number)?;
            Some(send_to_all(
                &self.endpoints,
                &open.endpoint,
                &open.signature,
                bytes,
            ))
        });
        futures_util::stream::iter(sends)
            .for_each_concurrent(RESENDS_AT_ONCE, |send| send)
            .await;
        within(limit, open_transactions::note_sends(pool, &numbers)).await
    }
}
