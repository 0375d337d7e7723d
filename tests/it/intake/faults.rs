//! Submissions are answered correctly when the database or the connection to it fails midway; repeating a submission is always safe.

use serde_json::Value;

use crate::support::readings::{count, past, reading};
use crate::support::{Grid, Server};

const SUBMIT: &str = "/api/meters/submit-reading";

/// Submits a reading to a service that fails once at `point`, then submits it again. Returns the refusal and the second answer.
async fn fail_once_at(grid: &Grid, point: &str) -> (Value, Value) {
    let failpoints = format!("{point}=1*return(error)");
    let server: Server = grid.spawn(&[("FAILPOINTS", &failpoints)]).await;
    let meter = server.user("prosumer").meter().await;
    let submission = reading(&meter, "1.5", past(3), 15);
    let refused = meter.api.post(SUBMIT, &submission).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    let again = meter.api.post(SUBMIT, &submission).await.ok();
    (refused.body["error"].clone(), again)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_answer_to_commit_is_lost_the_same_again_is_not_stored_twice() {
    let grid = Grid::without_service(&[]).await;
    let (sentence, again) = fail_once_at(&grid, "intake.committed").await;
    assert_eq!(
        sentence,
        "whether the reading was stored is not known; send it again: it will not be stored twice"
    );
    assert_eq!(again["duplicate"], true);
    assert_eq!(count(&grid.pool, "SELECT count(*) FROM readings").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_database_fails_before_commit_nothing_is_stored() {
    let grid = Grid::without_service(&[]).await;
    let (sentence, again) = fail_once_at(&grid, "intake.before_commit").await;
    assert_eq!(
        sentence,
        "the database cannot store readings at the moment; nothing was stored, send it again later"
    );
    assert_eq!(again["duplicate"], false);
    assert_eq!(count(&grid.pool, "SELECT count(*) FROM readings").await, 1);
}
