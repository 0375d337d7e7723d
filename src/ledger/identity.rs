//! Which database this is: a restored or promoted one is another, and may lack what an earlier one had sent.
//!
//! The database tells it itself (`database_identity()`, migration 0020), inside the transaction that asks, so that no answer
//! of an earlier connection is ever believed.

use sqlx::{FromRow, PgConnection};

/// The cluster's identifier, drawn by initdb; its timeline, which rises at every promotion and point-in-time recovery; and
/// which database and table in it, which a dump that was restored does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct DatabaseIdentity {
    pub system_identifier: i64,
    /// 0: the server does not tell, and the moment of its start stands in for the identifier.
    pub timeline: i32,
    pub incarnation: i64,
}

impl DatabaseIdentity {
    /// Of the database that this connection is connected to.
    pub(super) async fn read(connection: &mut PgConnection) -> sqlx::Result<DatabaseIdentity> {
        sqlx::query_as("SELECT system_identifier, timeline, incarnation FROM database_identity()")
            .fetch_one(connection)
            .await
    }
}
