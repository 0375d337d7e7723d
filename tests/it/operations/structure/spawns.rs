//! What is spawned is a periodic task or listed here.

use std::collections::BTreeSet;

use super::crates::{crates, room_of};

/// Files that spawn what is not a periodic task, and what that is. A loop that waits for time is a `PeriodicTask`, so that it
/// survives panics, has a limit and is listed in the status.
const SPAWNS: [(&str, &str); 16] = [
    ("api/resources/websocket.rs", "one client's stream"),
    ("api/server/accept.rs", "one connection"),
    ("coalesce.rs", "collects the items of callers into batches"),
    (
        "commands/local_stack.rs",
        "`run`: supervises the local chain and database",
    ),
    ("commands/replay/listener.rs", "the play: receives events"),
    (
        "commands/serve/base.rs",
        "every periodic task, and what `start.rs` and `open_chain.rs` hand over",
    ),
    (
        "commands/serve/open_chain.rs",
        "the resolver's lock, after the checks that a start without an endpoint skipped",
    ),
    ("commands/serve/http.rs", "accepts connections"),
    (
        "commands/serve/leader_tasks.rs",
        "the locks under which periodic tasks run",
    ),
    (
        "commands/serve/minting.rs",
        "apalis' workers, and the check of their heartbeats",
    ),
    ("commands/signals.rs", "waits for a signal"),
    (
        "commands/serve/start.rs",
        "receives notifications; holds the lock that marks the process alive",
    ),
    (
        "db/begin.rs",
        "one BEGIN, which a caller that gives up must not cut off",
    ),
    ("mint/first_send.rs", "one transaction's first send"),
    ("telemetry/traces/otlp_client.rs", "one export of traces"),
    (
        "telemetry/traces/provider.rs",
        "exports the steps of readings as they end",
    ),
];

#[test]
fn what_is_spawned_is_a_periodic_task_or_listed() {
    let library = &crates()[0];
    // The one stands outside the service, in tests; the other starts processes.
    let others = ["fault_proxy", "embedded"];
    let spawning: BTreeSet<&str> = library
        .modules
        .values()
        .filter(|module| !others.contains(&room_of(&module.file)))
        .filter(|module| {
            ["spawn(", "spawn_background("]
                .iter()
                .any(|call| module.code.contains(call))
        })
        .map(|module| module.file.as_str())
        .collect();
    let listed: BTreeSet<&str> = SPAWNS.iter().map(|(file, _)| *file).collect();
    let unlisted: Vec<&&str> = spawning.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "these spawn something: make it a PeriodicTask, or say here what it is: {unlisted:?}"
    );
    let stale: Vec<&&str> = listed.difference(&spawning).collect();
    assert!(stale.is_empty(), "these spawn nothing any more: {stale:?}");
}
