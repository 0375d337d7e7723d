//! The Resolver: brings every stored mint transaction to its end.
//!
//! One loop, about once a slot, in the one process that holds its lock. It depends on nothing but ledger and chain: not on
//! the queue, the sweep or the auto-mint switch. It re-sends the same bytes, confirms in bulk, finalizes, notices forks,
//! and beside that looks for proofs of death. Everything it writes is compare-and-set ([`transitions`]), so a Resolver that
//! wakes up late does no harm.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::{Transaction, TransactionError};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blame::{self, Blame};
use super::breaker::{self, BreakerState};
use super::expiry::ExpiryProver;
use super::open::{self, OpenTransaction};
use super::signature_status::{self, SIGNATURES_PER_CALL, SignatureStatus};
use super::{LedgerError, RetrySchedule, counts, refuse, send, transitions};
use crate::chain::Endpoints;
use crate::db::within;
use crate::domain::MintTransactionState;
use crate::periodic::Timing;

/// Settings of the Resolver.
#[derive(Clone, Debug)]
pub struct ResolverLimits {
    /// How long a transaction may stay unproven after its expiry, while an endpoint answers.
    pub quarantine_after: Duration,
    /// Of one transaction of the database: a session that falls silent must not stop the confirmations of all processes.
    /// Rounds have none: what they ask of the chain has its own, and a walk may be long.
    pub transaction_limit: Duration,
    /// For readings whose transaction failed on chain.
    pub schedule: RetrySchedule,
}

/// About one slot.
const ROUND_EVERY: Duration = Duration::from_millis(400);
/// Expiry takes a minute: there is no hurry to prove it.
const PROOF_EVERY: Duration = Duration::from_secs(2);
/// The authority's history is walked this often while the ledger breaker is closed.
const WALK_EVERY: Duration = Duration::from_secs(60);
/// A changed database is noticed so soon, also while nothing is signed: the wait that follows it begins then.
const LOOK_AT_IDENTITY_EVERY: Duration = Duration::from_secs(5);
/// An open breaker holds up all minting: it is closed as soon as rule 7 allows.
const TEND_OPEN_BREAKER_EVERY: Duration = Duration::from_secs(2);
/// What was appended to the counts waits about so long to be folded: bounds what a look at the counts adds up.
const FOLD_EVERY: Duration = Duration::from_secs(5);
/// The Minter has just sent what is younger; what is older and not seen is sent again, this often.
const RESEND_EVERY: Duration = Duration::from_secs(2);
/// For the list of periodic tasks. Each step of a round has a limit of its own.
pub const RESOLVER_TIMINGS: [Timing; 4] = [
    Timing::new("resolver rounds", ROUND_EVERY),
    Timing::new("expiry proofs", PROOF_EVERY),
    Timing::new("ledger breaker", WALK_EVERY),
    Timing::new("folding of counts", FOLD_EVERY),
];
/// Re-sends under way at once.
const RESENDS_AT_ONCE: usize = 16;
/// Re-sends in one round at most: the rest follows in the next.
const RESENDS_PER_ROUND: usize = 128;
/// A block's time is for people to read: finality is written down without it.
const BLOCK_TIME_LIMIT: Duration = Duration::from_secs(5);
const BLOCK_TIMES_AT_ONCE: usize = 16;
/// Older than this the recent-status cache of a node may have forgotten it.
const HISTORY_AFTER_MS: i64 = 60_000;
/// Rounds in which a confirmed transaction is not seen, in all but the first by any endpoint, before it is taken for forked.
/// Being wrong costs nobody anything but a second `TokensMinted`: the same bytes are sent again and found landed.
const ROUNDS_TO_FORK: u32 = 5;
/// Transactions confirmed in one database transaction: bounds how long their readings' events wait for each other.
const CONFIRMED_AT_ONCE: usize = 64;

/// Settles mint transactions while this process holds the Resolver's lock.
pub struct Resolver {
    pool: PgPool,
    endpoints: Endpoints,
    mint: Pubkey,
    authority: Pubkey,
    limits: ResolverLimits,
}

/// What the Resolver remembers between rounds; losing it costs nothing but time.
#[derive(Default)]
struct Memory {
    sent: HashMap<i64, Instant>,
    missed: HashMap<i64, u32>,
}

impl Resolver {
    pub fn new(
        pool: PgPool,
        endpoints: Endpoints,
        mint: Pubkey,
        authority: Pubkey,
        limits: ResolverLimits,
    ) -> Resolver {
        Resolver {
            pool,
            endpoints,
            mint,
            authority,
            limits,
        }
    }

    /// Runs until told to stop, or until the lock is lost.
    pub async fn run(&self, stop: CancellationToken) {
        let (to_send, handed_over) = mpsc::channel(1);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.settle_forever(to_send) => {}
            () = self.send_forever(handed_over) => {}
            () = self.prove_forever() => {}
            () = self.tend_breaker_forever() => {}
            () = self.fold_counts_forever() => {}
        }
    }

    async fn settle_forever(&self, to_send: mpsc::Sender<Vec<OpenTransaction>>) {
        let mut memory = Memory::default();
        let mut ticks = tokio::time::interval(ROUND_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut log = LogOnChange::default();
        loop {
            ticks.tick().await;
            log.report(self.settle_round(&mut memory, &to_send).await);
        }
    }

    /// Beside the rounds: an endpoint that hangs when it is sent to must not keep the others' transactions from being settled.
    async fn send_forever(&self, mut handed_over: mpsc::Receiver<Vec<OpenTransaction>>) {
        let mut log = LogOnChange::default();
        while let Some(due) = handed_over.recv().await {
            log.report(self.send_again(&due).await);
        }
    }

    async fn prove_forever(&self) {
        let mut prover = ExpiryProver::new(&self.pool, &self.endpoints, &self.limits);
        let mut ticks = tokio::time::interval(PROOF_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut log = LogOnChange::default();
        loop {
            ticks.tick().await;
            log.report(prover.round().await);
        }
    }

    async fn tend_breaker_forever(&self) {
        let mut log = LogOnChange::default();
        loop {
            let (mint, authority) = (&self.mint, &self.authority);
            let limit = self.limits.transaction_limit;
            let tended = breaker::tend(&self.pool, &self.endpoints, mint, authority, limit).await;
            let closed = matches!(tended, Ok(BreakerState::Closed));
            log.report(tended.map(drop));
            if closed {
                self.watch_identity_until_walk().await;
            } else {
                tokio::time::sleep(TEND_OPEN_BREAKER_EVERY).await;
            }
        }
    }

    /// Returns when the next walk is due, or at once when the database is another one than before.
    async fn watch_identity_until_walk(&self) {
        let mut looks = WALK_EVERY.as_secs() / LOOK_AT_IDENTITY_EVERY.as_secs();
        while looks > 0 {
            tokio::time::sleep(LOOK_AT_IDENTITY_EVERY).await;
            match self
                .in_time(breaker::open_if_identity_changed(&self.pool))
                .await
            {
                Ok(false) => looks -= 1,
                // A database that does not answer is what a fail-over begins with.
                Ok(true) | Err(_) => return,
            }
        }
    }

    async fn fold_counts_forever(&self) {
        let mut log = LogOnChange::default();
        loop {
            // What was folded when the time is up stays so.
            let folded = self.in_time(counts::fold(&self.pool)).await;
            log.report(folded.map_err(LedgerError::from));
            tokio::time::sleep(FOLD_EVERY).await;
        }
    }

    async fn in_time<T, E: From<sqlx::Error>>(
        &self,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        within(self.limits.transaction_limit, answer).await
    }

    async fn settle_round(
        &self,
        memory: &mut Memory,
        to_send: &mpsc::Sender<Vec<OpenTransaction>>,
    ) -> Result<(), LedgerError> {
        let open = self.in_time(open::open_transactions(&self.pool)).await?;
        memory.forget_all_but(&open);
        let mut unseen = Vec::new();
        for chunk in open.chunks(SIGNATURES_PER_CALL) {
            let mut changes = StatusChanges::default();
            for (open, status) in self.statuses(chunk, memory).await? {
                changes.classify(open, status, memory);
            }
            self.write_down(&changes).await?;
            unseen.extend(changes.to_send);
        }
        let due: Vec<OpenTransaction> = unseen
            .into_iter()
            .filter(|open| memory.is_send_due(open))
            .take(RESENDS_PER_ROUND)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let sent: Vec<i64> = due.iter().map(|open| open.number).collect();
        // While earlier ones are still being sent these wait for a later round.
        if to_send.try_send(due).is_ok() {
            memory
                .sent
                .extend(sent.into_iter().map(|number| (number, now)));
        }
        Ok(())
    }

    /// Recent ones are asked of one endpoint's cache; older ones, and confirmed ones that are missed, with history.
    async fn statuses<'a>(
        &self,
        chunk: &'a [OpenTransaction],
        memory: &Memory,
    ) -> Result<Vec<(&'a OpenTransaction, SignatureStatus)>, LedgerError> {
        let mut answers: Vec<(&OpenTransaction, SignatureStatus)> = Vec::with_capacity(chunk.len());
        let (recent, old): (Vec<_>, Vec<_>) = chunk
            .iter()
            .partition(|open| open.age_ms < HISTORY_AFTER_MS && !memory.misses(open));
        for (group, with_history) in [(recent, false), (old, true)] {
            if group.is_empty() {
                continue;
            }
            let signatures = signatures_of(&group)?;
            let found = signature_status::fetch(&self.endpoints, &signatures, with_history).await?;
            answers.extend(group.into_iter().zip(found));
        }
        Ok(answers)
    }

    async fn write_down(&self, changes: &StatusChanges) -> Result<(), LedgerError> {
        for landed in changes.confirmed.chunks(CONFIRMED_AT_ONCE) {
            self.in_time(transitions::confirm(&self.pool, landed))
                .await?;
        }
        if !changes.finalized.is_empty() {
            let slots: Vec<u64> = changes.finalized.iter().map(|landed| landed.slot).collect();
            let times = self.block_times(&slots).await;
            for landed in changes.finalized.chunks(CONFIRMED_AT_ONCE) {
                let block_times: Vec<Option<i64>> = landed
                    .iter()
                    .map(|landed| times.get(&landed.slot).copied().flatten())
                    .collect();
                self.in_time(transitions::finalize(&self.pool, landed, &block_times))
                    .await?;
            }
        }
        if !changes.forked.is_empty() {
            let readings = self
                .in_time(transitions::fork(&self.pool, &changes.forked))
                .await?;
            tracing::warn!(
                transactions = changes.forked.len(),
                readings,
                "confirmed mint transactions vanished in a fork; sending the same bytes again"
            );
        }
        for (number, error) in &changes.failed {
            let blame = self.blame(*number, error).await?;
            let schedule = &self.limits.schedule;
            let marked = refuse::mark_dead_failed(&self.pool, schedule, *number, error, &blame);
            let readings = self.in_time(marked).await?;
            tracing::warn!(number, %error, readings, "mint transaction failed on chain");
        }
        Ok(())
    }

    /// Seconds since 1970 of these slots' blocks; a time that cannot be had soon is left out of the books, not guessed.
    async fn block_times(&self, slots: &[u64]) -> HashMap<u64, Option<i64>> {
        let single: HashSet<u64> = slots.iter().copied().collect();
        let rpc = self.endpoints.preferred().rpc();
        futures_util::stream::iter(single)
            .map(|slot| async move {
                let asked = tokio::time::timeout(BLOCK_TIME_LIMIT, rpc.get_block_time(slot)).await;
                (slot, asked.ok().and_then(Result::ok))
            })
            .buffer_unordered(BLOCK_TIMES_AT_ONCE)
            .collect()
            .await
    }

    async fn blame(&self, number: i64, error: &TransactionError) -> Result<Blame, LedgerError> {
        let signed_bytes = self
            .in_time(open::signed_bytes(&self.pool, &[number]))
            .await?;
        let readings = self.in_time(open::readings_of(&self.pool, number)).await?;
        Ok(signed_bytes
            .first()
            .and_then(|(_, bytes)| bincode::deserialize::<Transaction>(bytes).ok())
            .map_or(Blame::Unknown, |transaction| {
                blame::blame(&transaction.message, error, &self.mint, &readings)
            }))
    }

    async fn send_again(&self, due: &[OpenTransaction]) -> Result<(), LedgerError> {
        let numbers: Vec<i64> = due.iter().map(|open| open.number).collect();
        let signed_bytes: HashMap<i64, Vec<u8>> = self
            .in_time(open::signed_bytes(&self.pool, &numbers))
            .await?
            .into_iter()
            .collect();
        futures_util::stream::iter(due.iter().filter_map(|open| {
            let bytes = signed_bytes.get(&open.number)?;
            Some(send::send_to_all(
                &self.endpoints,
                &open.endpoint,
                &open.signature,
                bytes,
            ))
        }))
        .for_each_concurrent(RESENDS_AT_ONCE, |sent| sent)
        .await;
        self.in_time(open::note_sends(&self.pool, &numbers)).await?;
        Ok(())
    }
}

impl Memory {
    fn forget_all_but(&mut self, open: &[OpenTransaction]) {
        let numbers: HashSet<i64> = open.iter().map(|open| open.number).collect();
        self.sent.retain(|number, _| numbers.contains(number));
        self.missed.retain(|number, _| numbers.contains(number));
    }

    /// Whether it was confirmed and the last round did not see it.
    fn misses(&self, open: &OpenTransaction) -> bool {
        self.missed.contains_key(&open.number)
    }

    fn is_send_due(&self, open: &OpenTransaction) -> bool {
        let just_recorded = open.age_ms < RESEND_EVERY.as_millis() as i64;
        let just_sent = self
            .sent
            .get(&open.number)
            .is_some_and(|sent| sent.elapsed() < RESEND_EVERY);
        !just_recorded && !just_sent
    }
}

/// One round's statuses, by what is to be done about them.
#[derive(Default)]
struct StatusChanges {
    confirmed: Vec<transitions::Landed>,
    finalized: Vec<transitions::Landed>,
    failed: Vec<(i64, TransactionError)>,
    forked: Vec<i64>,
    to_send: Vec<OpenTransaction>,
}

impl StatusChanges {
    fn classify(&mut self, open: &OpenTransaction, status: SignatureStatus, memory: &mut Memory) {
        let confirmed = open.state == MintTransactionState::Confirmed;
        let number = open.number;
        if status != SignatureStatus::NotSeen {
            memory.missed.remove(&number);
        }
        match status {
            SignatureStatus::Confirmed { slot } if !confirmed => {
                self.confirmed.push(transitions::Landed { number, slot });
            }
            SignatureStatus::Finalized { slot } => {
                if !confirmed {
                    self.confirmed.push(transitions::Landed { number, slot });
                }
                self.finalized.push(transitions::Landed { number, slot });
            }
            SignatureStatus::FailedForGood { error } => {
                // Confirmed without an error on a fork that died, finalized with one on the fork that lived.
                if confirmed {
                    self.forked.push(number);
                }
                self.failed.push((number, error));
            }
            SignatureStatus::NotSeen if confirmed => {
                let missed = memory.missed.entry(number).or_default();
                *missed += 1;
                if *missed >= ROUNDS_TO_FORK {
                    self.forked.push(number);
                }
            }
            SignatureStatus::NotSeen => self.to_send.push(open.clone()),
            SignatureStatus::Confirmed { .. } | SignatureStatus::Unsettled => {}
        }
    }
}

fn signatures_of(open: &[&OpenTransaction]) -> Result<Vec<Signature>, LedgerError> {
    open.iter()
        .map(|open| {
            Signature::from_str(&open.signature).map_err(|_| LedgerError::Unreadable {
                what: "a signature",
                value: open.signature.clone(),
            })
        })
        .collect()
}

/// Logs a failure when it begins and when it is over, not at every round.
#[derive(Default)]
struct LogOnChange {
    failing: bool,
}

impl LogOnChange {
    fn report(&mut self, outcome: Result<(), LedgerError>) {
        match outcome {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "the Resolver cannot work; trying again each round");
            }
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the Resolver works again");
            }
            _ => {}
        }
    }
}
