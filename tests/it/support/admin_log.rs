//! The admin log, by the API and as it is stored.

use serde_json::Value;

use super::{Api, Grid};

/// All entries, page by page.
pub async fn entries(admin: &Api) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = admin
            .get(&format!("/api/admin/log?after={after}&limit=3"))
            .await
            .ok();
        entries.extend(page["entries"].as_array().unwrap().clone());
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => return entries,
        }
    }
}

/// Actor, action and details of each entry.
pub async fn admin_log(grid: &Grid) -> Vec<(String, String, Value)> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT actor, action, details FROM admin_log ORDER BY number")
            .fetch_all(&grid.pool)
            .await
            .unwrap();
    rows.into_iter()
        .map(|(actor, action, details)| (actor, action, serde_json::from_str(&details).unwrap()))
        .collect()
}
