//! Room for the numbers ahead.

use sqlx::{AssertSqlSafe, PgPool};

use super::event::Seq;

/// Numbers in one partition of `events`. Names and bounds as in the migration that made the first ones.
const PARTITION_SEQS: i64 = 1_000_000;
/// Partitions that stand ready beyond the current one: at ten thousand events a second, minutes to notice a failure.
const PARTITIONS_AHEAD: i64 = 2;

/// Which partition holds a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartitionNumber(i64);

impl PartitionNumber {
    pub fn of(seq: Seq) -> PartitionNumber {
        PartitionNumber(seq.get() / PARTITION_SEQS)
    }
}

/// Makes the partitions after `current` that are not there yet.
pub(super) async fn make_ahead(pool: &PgPool, current: PartitionNumber) -> sqlx::Result<()> {
    for number in current.0..=current.0 + PARTITIONS_AHEAD {
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(format!("events_{number}"))
            .fetch_one(pool)
            .await?;
        if !exists {
            make(pool, number).await?;
            tracing::info!(partition = number, "made a partition of events");
        }
    }
    Ok(())
}

async fn make(pool: &PgPool, number: i64) -> sqlx::Result<()> {
    let from = number * PARTITION_SEQS;
    let to = from + PARTITION_SEQS;
    let mut transaction = pool.begin().await?;
    // Made beside and then attached: CREATE … PARTITION OF would lock out the readers of `events`.
    for statement in [
        format!("CREATE TABLE events_{number} (LIKE events INCLUDING ALL)"),
        format!(
            "ALTER TABLE events
             ATTACH PARTITION events_{number} FOR VALUES FROM ({from}) TO ({to})"
        ),
    ] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
