//! The schema that this version works on: its migrations, part of the program.

use sqlx::migrate::Migrator;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The migrations, to be run.
pub fn migrator() -> Migrator {
    let mut migrator = Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    // A newer version may have been here: two versions run side by side during an upgrade, and the older one must be able to
    // start again, also for a rollback. Migrations expand first and contract a release later, so it finds all that it needs.
    migrator.set_ignore_missing(true);
    migrator
}

/// Versions of all of them.
pub fn versions() -> Vec<i64> {
    MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .collect()
}
