//! SIGINT and SIGTERM: the first one ends the program in order, the second one at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The status that a shell reports for a program that SIGINT ended.
const STATUS_AT_ONCE: i32 = 130;

/// Returns a token that SIGINT or SIGTERM cancels. A second signal ends the process at once, as a kill would; the next start
/// recovers from that.
pub fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    // Lives as long as the process: a signal may come at any time.
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        stopping.cancel();
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(STATUS_AT_ONCE);
    });
    Ok(stop)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
