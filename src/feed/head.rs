//! `feed_head`: the newest number, and the row lock that orders everything that changes numbers or partitions.

use sqlx::{PgExecutor, PgTransaction};

use super::event::Seq;

/// The newest number that was assigned.
pub(super) async fn last_seq(executor: impl PgExecutor<'_>) -> sqlx::Result<Seq> {
    let last_seq = sqlx::query_scalar("SELECT last_seq FROM feed_head")
        .fetch_one(executor)
        .await?;
    Ok(Seq::from_stored(last_seq))
}

/// Locks `feed_head` until the transaction ends: no other transaction assigns numbers or changes partitions meanwhile. Returns the
/// newest number; later statements of this transaction see everything that was committed before the lock was granted.
pub(super) async fn lock(transaction: &mut PgTransaction<'_>) -> sqlx::Result<Seq> {
    let last_seq =
        sqlx::query_scalar("UPDATE feed_head SET last_seq = last_seq RETURNING last_seq")
            .fetch_one(&mut **transaction)
            .await?;
    Ok(Seq::from_stored(last_seq))
}
