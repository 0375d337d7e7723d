//! Meters are registered once, for a wallet that a key can sign for, and listed with what they reported.

use serde_json::{Value, json};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signer as _};

use crate::support::Grid;
use crate::support::readings::{past, reading};

fn problem(kind: &str, title: &str, status: u16, sentence: &str) -> Value {
    json!({
        "type": format!("/problems/{kind}"),
        "title": title,
        "status": status,
        "detail": sentence,
        "error": sentence,
    })
}

#[tokio::test]
async fn a_meter_is_registered_once_and_the_same_again_is_fine() {
    let grid = Grid::start().await;
    let alice = grid.user("alice");
    let wallet = Keypair::new().pubkey().to_string();
    let new = json!({"meter_id": "m-1", "wallet_address": wallet});
    let registered = json!({
        "meter_id": "m-1",
        "wallet_address": wallet,
        "owner": "alice",
        "interval_minutes": 15,
    });
    let first = alice.post("/api/meters", &new).await;
    assert_eq!((first.status, &first.body), (201, &registered));
    let again = alice.post("/api/meters", &new).await;
    assert_eq!((again.status, &again.body), (200, &registered));
    // The same letters, composed or not, are one meter.
    let composed = json!({"meter_id": "Zähler", "wallet_address": wallet});
    let decomposed = json!({"meter_id": "Za\u{308}hler", "wallet_address": wallet});
    assert_eq!(alice.post("/api/meters", &composed).await.status, 201);
    assert_eq!(alice.post("/api/meters", &decomposed).await.status, 200);

    let conflict = |sentence: &str| (409, problem("conflict", "Conflict", 409, sentence));
    let refused = grid.user("bob").post("/api/meters", &new).await;
    assert_eq!(
        (refused.status, refused.body),
        conflict("meter m-1 is registered by another owner; check the meter_id")
    );
    let other_wallet =
        json!({"meter_id": "m-1", "wallet_address": Keypair::new().pubkey().to_string()});
    let refused = alice.post("/api/meters", &other_wallet).await;
    assert_eq!(
        (refused.status, refused.body),
        conflict(&format!(
            "meter m-1 is registered with another wallet_address ({wallet}); a meter's wallet does not change"
        ))
    );
    let other_interval =
        json!({"meter_id": "m-1", "wallet_address": wallet, "interval_minutes": 30});
    let refused = alice.post("/api/meters", &other_interval).await;
    assert_eq!(
        (refused.status, refused.body),
        conflict(
            "meter m-1 is registered with interval_minutes 15; a meter's interval does not change"
        )
    );
}

#[tokio::test]
async fn a_hundred_registrations_of_one_meter_are_one_meter() {
    let grid = Grid::start().await;
    let alice = grid.user("alice");
    let new = json!({"meter_id": "m-1", "wallet_address": Keypair::new().pubkey().to_string()});
    let answers = futures_util::future::join_all(
        (0..100).map(async |_| alice.post("/api/meters", &new).await),
    )
    .await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let found = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, found), (1, 99));
}

#[tokio::test]
async fn only_an_admin_names_another_owner() {
    let grid = Grid::start().await;
    let new = json!({
        "meter_id": "m-1",
        "wallet_address": Keypair::new().pubkey().to_string(),
        "owner": "bob",
    });
    let refused = grid.user("alice").post("/api/meters", &new).await;
    assert_eq!(
        refused.body,
        problem(
            "forbidden",
            "Forbidden",
            403,
            "only an admin may register a meter for another owner; leave owner out, or give your own subject"
        )
    );
    assert_eq!(
        grid.admin().post("/api/meters", &new).await.ok()["owner"],
        "bob"
    );
    assert_eq!(grid.user("bob").post("/api/meters", &new).await.status, 200);
}

#[tokio::test]
async fn invalid_serials_and_wallets_are_refused_with_the_reason() {
    let grid = Grid::start().await;
    let alice = grid.user("alice");
    let wallet = Keypair::new().pubkey();
    let token_account = Pubkey::find_program_address(&[b"nobody's key"], &wallet).0;
    for (member, value, sentence) in [
        ("meter_id", json!(""), "meter_id is empty; a meter's serial has 1 to 64 characters".to_owned()),
        (
            "meter_id",
            json!("a b"),
            "meter_id a b holds the character U+0020; a meter's serial has letters, digits, punctuation and symbols only"
                .to_owned(),
        ),
        ("meter_id", json!("x".repeat(65)), format!("meter_id {}… is longer than 64 characters", "x".repeat(64))),
        ("wallet_address", json!("not base58!"), "wallet_address not base58! is not base58".to_owned()),
        (
            "wallet_address",
            json!("abc"),
            "wallet_address abc is not 32 bytes of base58, as a Solana address is".to_owned(),
        ),
        (
            "wallet_address",
            json!("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"),
            "wallet_address TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA is the token program, not a wallet".to_owned(),
        ),
        (
            "wallet_address",
            json!(token_account.to_string()),
            format!(
                "wallet_address {token_account} is not on the ed25519 curve: no private key exists for it, \
                 so tokens sent there are lost"
            ),
        ),
        (
            "interval_minutes",
            json!(1441),
            "interval_minutes 1441 is out of range; a meter's interval is a whole number of minutes from 1 to 1440"
                .to_owned(),
        ),
    ] {
        let mut new = json!({"meter_id": "m-1", "wallet_address": wallet.to_string()});
        new[member] = value;
        let refused = alice.post("/api/meters", &new).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert_eq!(
            refused.body,
            problem("validation-failed", "Validation failed", 400, &sentence)
        );
    }
    let malformed =
        json!({"meter_id": "m-1", "wallet_address": wallet.to_string(), "interval_minutes": 1.5});
    assert_eq!(
        alice.post("/api/meters", &malformed).await.body["type"],
        "/problems/malformed-request"
    );
}

#[tokio::test]
async fn meters_are_listed_by_serial_with_their_totals_page_by_page() {
    let grid = Grid::start().await;
    let alice = grid.user("alice");
    let mut meters = Vec::new();
    for _ in 0..3 {
        meters.push(alice.meter().await);
    }
    grid.user("bob").meter().await;
    meters.sort_by(|one, other| one.serial.cmp(&other.serial));
    for (hours, kwh) in [(3, "0.1"), (2, "0.2"), (5, "99.700000000000000001")] {
        let submission = reading(&meters[1], kwh, past(hours), 15);
        alice
            .post("/api/meters/submit-reading", &submission)
            .await
            .ok();
    }
    let listed = |meter: &crate::support::Meter, readings: i64, kwh: &str, base_units: &str| {
        json!({
            "meter_id": meter.serial,
            "wallet_address": meter.wallet.pubkey().to_string(),
            "owner": "alice",
            "interval_minutes": 15,
            "readings": readings,
            "kwh_total": kwh,
            "base_units_total": base_units,
        })
    };
    let page = alice.get("/api/meters?limit=2").await.ok();
    assert_eq!(
        page,
        json!({
            "meters": [
                listed(&meters[0], 0, "0", "0"),
                listed(&meters[1], 3, "100.000000000000000001", "100000000000"),
            ],
            "next": meters[1].serial,
        })
    );
    let page = alice
        .get(&format!("/api/meters?limit=2&after={}", meters[1].serial))
        .await
        .ok();
    assert_eq!(
        page,
        json!({"meters": [listed(&meters[2], 0, "0", "0")], "next": null})
    );
    let all = grid.admin().get("/api/meters").await.ok();
    assert_eq!(all["meters"].as_array().unwrap().len(), 4);

    for (query, sentence) in [
        (
            "limit=0",
            "limit \"0\" is out of range; give a whole number from 1 to 1000",
        ),
        (
            "limit=ten",
            "limit \"ten\" is out of range; give a whole number from 1 to 1000",
        ),
        (
            "after=a%20b",
            "after a b holds the character U+0020; a meter's serial has letters, digits, punctuation and symbols only",
        ),
    ] {
        let refused = alice.get(&format!("/api/meters?{query}")).await;
        assert_eq!(
            refused.body,
            problem("malformed-request", "Malformed request", 400, sentence)
        );
    }
}
