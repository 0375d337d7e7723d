//! Identifies the database: a restored or promoted one is another, and may lack what an earlier one had sent.
//!
//! The database reports it (`database_identity()`, migration 0025) inside the transaction that reads it, so an answer of an
//! earlier connection is never used.

use sqlx::{FromRow, PgConnection};

/// The cluster's identifier, chosen by initdb; its timeline, which rises at every promotion and point-in-time recovery; the
/// database and table in it, which a restored dump changes; and the start of the server, which changes when files are put back
/// while it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct DatabaseIdentity {
    pub system_identifier: i64,
    /// 0: the server does not report it, and the time of its start stands in for the identifier.
    pub timeline: i32,
    pub incarnation: i64,
    /// 0: the private cluster of `gridtokenx run`.
    pub server_start: i64,
}

impl DatabaseIdentity {
    /// Reads the identity of the database that this connection is connected to.
    pub(super) async fn read(connection: &mut PgConnection) -> sqlx::Result<DatabaseIdentity> {
        sqlx::query_as(
            "SELECT system_identifier, timeline, incarnation, server_start
             FROM database_identity()",
        )
        .fetch_one(connection)
        .await
    }

    /// The difference from the one that the ledger knew, as a sentence for people.
    pub(super) fn change_since(&self, known: &DatabaseIdentity) -> String {
        let restarted_only = DatabaseIdentity {
            server_start: known.server_start,
            ..*self
        } == *known;
        if restarted_only {
            return "the database server was restarted, and its files may have been put back while it was down".to_owned();
        }
        format!(
            "the database was restored or has failed over (system identifier {} timeline {} incarnation {:x}, \
             before {} timeline {} incarnation {:x})",
            self.system_identifier,
            self.timeline,
            self.incarnation,
            known.system_identifier,
            known.timeline,
            known.incarnation
        )
    }
}
