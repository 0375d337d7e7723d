//! Each accepted reading is paid exactly once.

use crate::support::Grid;

#[tokio::test(flavor = "multi_thread")]
async fn readings_become_tokens_and_are_finalized() {
    let mut grid = Grid::start().await;
    let meter = grid.meter().await;
    let first = meter.report("1.25").await;
    for _ in 0..24 {
        meter.report("0.5").await;
    }
    grid.until_count("finalized", 25).await;
    let reading = meter.api.get(&format!("/api/readings/{first}")).await.ok();
    assert_eq!(reading["base_units"], "1250000000");
    assert_eq!(reading["state"], "finalized");
    assert!(grid.stop().await);
}
