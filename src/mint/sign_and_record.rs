//! Step 6 of the pipeline: signs a draft outside any database transaction, and records it in the ledger.
//!
//! Invariant: signed bytes leave this process only after the commit that records them is known. So only a [`Recorded`]
//! transaction can be sent.

use chrono::{DateTime, Utc};

use super::context::MintContext;
use super::defer_reason::DeferReason;
use super::draft::Draft;
use super::stage_times::observe;
use super::transaction;
use crate::chain::{Endpoint, RecentBlockhash};
use crate::domain::TransactionFormat;
use crate::ledger::{self, NewMintTransaction, PackedReading, RecordError};
use crate::telemetry::traces::TransactionSpan;
use crate::telemetry::{Stage, metric_value, names};

/// A signed mint transaction whose record was committed.
pub(super) struct Recorded {
    pub transaction: NewMintTransaction,
    pub format: TransactionFormat,
    /// When its readings were accepted.
    pub accepted: Vec<DateTime<Utc>>,
    pub span: TransactionSpan,
}

/// The reason for which a draft was not recorded. None of its bytes has left this process.
pub(super) enum NotRecorded {
    /// A reading changed since it was loaded: it is packed again.
    Stale,
    Deferred(DeferReason),
}

pub(super) async fn sign_and_record(
    context: &MintContext,
    endpoint: &Endpoint,
    blockhash: RecentBlockhash,
    draft: Draft,
) -> Result<Recorded, NotRecorded> {
    let traced = draft.readings.iter();
    let traced = traced.filter_map(|reading| Some((reading.id, reading.trace.clone()?)));
    let mut span = TransactionSpan::begin(draft.number.get(), traced.collect());
    let accepted: Vec<DateTime<Utc>> = draft
        .readings
        .iter()
        .map(|reading| reading.accepted_at)
        .collect();
    let readings = draft.readings.iter().map(|reading| PackedReading {
        id: reading.id,
        revision: reading.revision,
    });
    let readings = readings.collect();
    let fee_lamports = draft.fee_lamports();
    let format = draft.format;
    let (signature, signed_bytes) =
        transaction::sign(draft.message, blockhash.hash, &context.signer)
            .map_err(|error| NotRecorded::Deferred(error.into()))?;
    span.signed(&signature);
    crate::failpoint!("mint.signed");
    let transaction = NewMintTransaction {
        number: draft.number,
        signature: signature.into(),
        signed_bytes,
        merkle_root: draft.merkle_root,
        base_units: draft.packed.base_units,
        blockhash,
        endpoint: endpoint.name().to_owned(),
        account_creations: draft.packed.account_creations(),
        fee_lamports,
        priority_fee_lamports: draft.priority_fee_lamports,
        token_account_rent_lamports: draft.costs.account_rent,
        readings,
    };
    let limit = context.limits.transaction_limit;
    let recorded = ledger::record(&context.pool, limit, &transaction).await;
    // Unknown: the record may be there, so its cost stays reserved.
    if matches!(recorded, Ok(()) | Err(RecordError::Unknown(_))) {
        draft.reservation.recorded();
    }
    if let Err(error) = recorded {
        span.not_recorded();
        return Err(match error {
            RecordError::Stale => NotRecorded::Stale,
            error => NotRecorded::Deferred(error.into()),
        });
    }
    report(&transaction, &accepted, format, draft.packed.bytes);
    Ok(Recorded {
        transaction,
        format,
        accepted,
        span,
    })
}

/// `bytes`: the size of the transaction.
fn report(
    transaction: &NewMintTransaction,
    accepted: &[DateTime<Utc>],
    format: TransactionFormat,
    bytes: usize,
) {
    observe(Stage::Signed, accepted);
    metrics::histogram!(names::MINT_TRANSACTION_READINGS).record(metric_value(accepted.len()));
    metrics::histogram!(names::MINT_TRANSACTION_SIZE_BYTES).record(metric_value(bytes));
    metrics::counter!(names::MINT_TRANSACTION_FORMATS, "format" => format.as_str()).increment(1);
    metrics::counter!(names::TOKEN_ACCOUNT_CREATIONS)
        .increment(u64::from(transaction.account_creations));
    tracing::debug!(
        signature = %transaction.signature,
        number = %transaction.number,
        readings = accepted.len(),
        bytes,
        %format,
        "mint transaction recorded"
    );
}
