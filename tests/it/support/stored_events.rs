//! Events as the database holds them, numbered or not yet.

use serde_json::Value;

use super::Grid;

/// Those of one type, in the order in which they were written.
pub async fn events(grid: &Grid, event_type: &str) -> Vec<Value> {
    let bodies: Vec<String> = sqlx::query_scalar(
        "SELECT body
         FROM (SELECT event_id, body FROM outbox WHERE event_type = $1
               UNION
               SELECT event_id, body FROM events WHERE event_type = $1) AS written
         ORDER BY event_id",
    )
    .bind(event_type)
    .fetch_all(&grid.pool)
    .await
    .unwrap();
    bodies
        .iter()
        .map(|body| serde_json::from_str(body).unwrap())
        .collect()
}

/// Notifications to admins.
pub async fn notifications(grid: &Grid) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*)
         FROM (SELECT event_id FROM outbox WHERE event_type = 'AdminNotification'
               UNION
               SELECT event_id FROM events WHERE event_type = 'AdminNotification') AS written",
    )
    .fetch_one(&grid.pool)
    .await
    .unwrap()
}
