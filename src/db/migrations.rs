//! The schema that this version works on: its migrations, compiled into the program, and those of the queue.

use apalis_postgres::PostgresStorage;
use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The schema could not be brought up to date.
#[derive(Debug, Error)]
pub enum MigrationError {
    /// The tables of apalis.
    #[error(transparent)]
    Queue(#[from] apalis_postgres::Error),
    /// The tables of this program.
    #[error(transparent)]
    Service(#[from] MigrateError),
}

/// Brings the schema up to date.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrationError> {
    PostgresStorage::setup(pool).await?;
    migrator().run(pool).await?;
    Ok(())
}

fn migrator() -> Migrator {
    let mut migrator = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    // A newer version may have been here: two versions run side by side during an upgrade, and the older one must be able to
    // start again, also for a rollback. Migrations expand first and contract a release later, so it finds all that it needs.
    migrator.set_ignore_missing(true);
    migrator
}

/// Versions of all migrations of this program.
pub fn migration_versions() -> Vec<i64> {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .collect()
}
