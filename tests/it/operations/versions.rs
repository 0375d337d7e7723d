//! Two versions of the program share one database during an upgrade.

use crate::support::Grid;

#[tokio::test(flavor = "multi_thread")]
async fn a_version_starts_and_mints_on_the_schema_of_a_newer_one() {
    let mut grid = Grid::start().await;
    assert!(grid.stop().await);
    // As after a newer version: the database has a migration that this version does not contain.
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999999, 'of a later version', TRUE, '\\x00', 0)",
    )
    .execute(&grid.pool)
    .await
    .unwrap();
    grid.serve().await;
    grid.meter().await.report("1").await;
    grid.until_count("finalized", 1).await;
    grid.audit_holds().await;
}
