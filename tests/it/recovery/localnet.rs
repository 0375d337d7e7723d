//! The local chain stays consistent after kill -9 under load and after a restart, and refuses what it cannot serve.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::GetConfirmedSignaturesForAddress2Config;
use solana_client::rpc_config::RpcTransactionConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::hash::Hash;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Signature, Signer};
use solana_sdk::transaction::VersionedTransaction;
use solana_transaction_status::UiTransactionEncoding;
use spl_token_interface::instruction::mint_to;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use crate::support::localnet::{Localnet, PROGRAM, State, TempDir};

mod history;
mod rent;
mod token;
mod version_1;

use history::{block, landed, times_of_blocks, walk};
use token::{MEMO, Money, memo, send, until_confirmed, until_confirmed_or_failed};

/// Tasks that send mints, each as soon as its last one is answered, until the chain has ended.
struct Load {
    senders: JoinSet<()>,
    sent: Arc<Mutex<Sent>>,
    /// Reports each answer.
    answer: Arc<Notify>,
}

#[derive(Default)]
struct Sent {
    /// What was signed, whether or not it was answered, with the sum of its mints.
    amounts: HashMap<Signature, u64>,
    answered: HashSet<String>,
}

impl Load {
    /// Every other sender's transactions have version 1. `next_amount` is never used twice, so every signature is new.
    fn start(
        rpc_url: &str,
        money: &Arc<Money>,
        blockhash: Hash,
        next_amount: &Arc<AtomicU64>,
    ) -> Self {
        const SENDERS: usize = 24;
        const MINTS_PER_TRANSACTION: u64 = 10;
        let mut load = Self {
            senders: JoinSet::new(),
            sent: Arc::default(),
            answer: Arc::default(),
        };
        let client = Arc::new(RpcClient::new(rpc_url.to_owned()));
        for sender in 0..SENDERS {
            let (client, money, next_amount) = (client.clone(), money.clone(), next_amount.clone());
            let (sent, answer) = (load.sent.clone(), load.answer.clone());
            load.senders.spawn(async move {
                loop {
                    let first = next_amount.fetch_add(MINTS_PER_TRANSACTION, Ordering::Relaxed);
                    let amounts = first..first + MINTS_PER_TRANSACTION;
                    let mut instructions = vec![memo(MEMO)];
                    instructions.extend(amounts.clone().map(|amount| money.mint_to(amount)));
                    let transaction = match sender % 2 {
                        0 => VersionedTransaction::from(money.signed(&instructions, blockhash)),
                        _ => money.signed_version_1(&instructions, blockhash),
                    };
                    let signature = transaction.signatures[0];
                    sent.lock().await.amounts.insert(signature, amounts.sum());
                    if send(&client, &transaction).await.is_err() {
                        return;
                    }
                    sent.lock().await.answered.insert(signature.to_string());
                    answer.notify_one();
                }
            });
        }
        load
    }

    /// Returns at the moment of the kill, with the slot shortly before it. Sends are answered when their block closes, so
    /// most of these moments are while the block is written; the others are random.
    async fn run(&self, client: &RpcClient, rng: &mut StdRng) -> u64 {
        const ANSWER_MAX: Duration = Duration::from_secs(20);
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..1_000))).await;
        let processed = CommitmentConfig::processed();
        let slot = client.get_slot_with_commitment(processed).await.unwrap();
        if rng.random_bool(0.8) {
            // One permit may be left from before.
            for _ in 0..2 {
                tokio::time::timeout(ANSWER_MAX, self.answer.notified())
                    .await
                    .expect("the chain answers");
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..25))).await;
        }
        slot
    }

    /// Waits until the last sender has seen that the chain has ended.
    async fn finish(mut self) -> Sent {
        while self.senders.join_next().await.is_some() {}
        std::mem::take(&mut *self.sent.lock().await)
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supply_equals_the_landed_mints_after_every_kill() {
    const KILLS: usize = 20;
    /// At most this many closed blocks wait to be written (see the program's `persistence.rs`).
    const BLOCKS_ROLLED_BACK_MAX: u64 = 14;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);

    let dir = TempDir::new("kill9");
    let mut chain = Localnet::start(dir.path()).await;
    let genesis = chain.genesis_hash.clone();
    let money = Arc::new(Money::create(&chain.client()).await);
    assert!(chain.stop().await.success());
    chain.restart().await;
    let next_amount = Arc::new(AtomicU64::new(1));
    let mut all_sent = HashMap::new();
    let (mut landed_before, mut supply_before, mut first_slot) = (0, 0, chain.slot);

    for round in 0..KILLS {
        let client = chain.client();
        let blockhash = client.get_latest_blockhash().await.unwrap();
        let load = Load::start(&chain.rpc_url, &money, blockhash, &next_amount);
        let slot_before = load.run(&client, &mut rng).await;
        chain.kill9().await;
        let sent = load.finish().await.amounts;
        chain.restart().await;

        let client = chain.client();
        assert_eq!(chain.genesis_hash, genesis);
        assert!(chain.slot >= first_slot, "slots go on");
        assert!(chain.slot + BLOCKS_ROLLED_BACK_MAX >= slot_before);

        let (landed, sum) = landed(&client, &sent).await;
        let supply = money.supply(&client).await;
        assert_eq!(supply, supply_before + sum, "round {round}, seed {seed}");
        assert_eq!(money.balance(&client).await, supply);

        let last_slot = chain.slot - 1;
        let in_blocks = walk(&client, first_slot, last_slot).await;
        let in_blocks: Vec<_> = in_blocks.into_values().flatten().collect();
        let found: HashSet<_> = in_blocks.iter().cloned().collect();
        assert_eq!(found.len(), in_blocks.len(), "a signature is in one block");
        assert_eq!(found, landed, "the blocks hold what landed");

        let newest = client.get_slot().await.unwrap();
        let time = block(&client, newest).await.block_time.unwrap();
        assert!((time - unix_seconds()).abs() <= 5, "block time {time}");

        landed_before += landed.len();
        supply_before = supply;
        first_slot = chain.slot;
        all_sent.extend(sent);
    }
    // Everything that has landed is still there.
    let (landed, sum) = landed(&chain.client(), &all_sent).await;
    assert_eq!((landed.len(), sum), (landed_before, supply_before));
    assert!(landed.len() > KILLS, "the chain was under load");
    println!("{} of {} landed", landed.len(), all_sent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_keeps_every_answered_transaction() {
    let dir = TempDir::new("stop");
    let mut chain = Localnet::start(dir.path()).await;
    let client = chain.client();
    let money = Arc::new(Money::create(&client).await);
    let blockhash = client.get_latest_blockhash().await.unwrap();
    let load = Load::start(&chain.rpc_url, &money, blockhash, &Arc::new(1.into()));
    load.run(&client, &mut StdRng::seed_from_u64(7)).await;

    let began = Instant::now();
    assert!(chain.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(2));
    let sent = load.finish().await;
    chain.restart().await;

    let (landed, sum) = landed(&chain.client(), &sent.amounts).await;
    assert!(!sent.answered.is_empty());
    assert!(sent.answered.is_subset(&landed));
    assert_eq!(money.supply(&chain.client()).await, sum);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_loses_nothing() {
    let dir = TempDir::new("restart");
    let mut chain = Localnet::start(dir.path()).await;
    let client = chain.client();
    let money = Money::create(&client).await;
    let blockhash = client.get_latest_blockhash().await.unwrap();
    let good = money.signed(&[memo(MEMO), money.mint_to(1_250_000_000)], blockhash);
    send(&client, &good).await.unwrap();
    // Refused by the token program: it pays its fee, and its error is on record.
    let stranger = mint_to(
        &spl_token_interface::ID,
        &money.mint,
        &money.mint,
        &money.payer.pubkey(),
        &[],
        1,
    );
    let bad = money.signed(&[stranger.unwrap()], blockhash);
    let _ = send(&client, &bad).await;
    let given = Pubkey::new_unique();
    client.request_airdrop(&given, 3_000_000_000).await.unwrap();

    let signatures = [good.signatures[0], bad.signatures[0]];
    for signature in &signatures {
        until_confirmed_or_failed(&client, signature).await;
    }
    let config = RpcTransactionConfig {
        encoding: Some(UiTransactionEncoding::Json),
        commitment: Some(CommitmentConfig::confirmed()),
        max_supported_transaction_version: Some(0),
    };
    let mut before = Vec::new();
    for signature in &signatures {
        let transaction = client
            .get_transaction_with_config(signature, config)
            .await
            .unwrap();
        before.push(transaction);
    }
    let payer_lamports = client.get_balance(&money.payer.pubkey()).await.unwrap();
    let slot = client.get_slot().await.unwrap();
    let blocks = walk(&client, 0, slot).await;
    let times: Vec<_> = times_of_blocks(&client, 0, slot).await;

    let began = Instant::now();
    assert!(chain.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(2));
    chain.restart().await;

    let client = chain.client();
    assert!(chain.slot > slot);
    for (signature, before) in signatures.iter().zip(&before) {
        let after = client
            .get_transaction_with_config(signature, config)
            .await
            .unwrap();
        assert_eq!(
            serde_json::to_value(&after).unwrap(),
            serde_json::to_value(before).unwrap()
        );
    }
    let statuses = client
        .get_signature_statuses_with_history(&signatures)
        .await
        .unwrap()
        .value;
    assert_eq!(statuses[0].as_ref().unwrap().err, None);
    assert!(statuses[1].as_ref().unwrap().err.is_some());
    assert_eq!(money.supply(&client).await, 1_250_000_000);
    assert_eq!(client.get_balance(&given).await.unwrap(), 3_000_000_000);
    assert_eq!(
        client.get_balance(&money.payer.pubkey()).await.unwrap(),
        payer_lamports
    );
    assert_eq!(walk(&client, 0, slot).await, blocks);
    assert_eq!(times_of_blocks(&client, 0, slot).await, times);
    // Token accounts are indexed again by owner and by mint.
    let owned = client
        .get_token_accounts_by_owner(
            &money.wallet,
            solana_client::rpc_request::TokenAccountsFilter::Mint(money.mint),
        )
        .await
        .unwrap();
    assert_eq!(owned.len(), 1);

    let config = GetConfirmedSignaturesForAddress2Config {
        commitment: Some(CommitmentConfig::confirmed()),
        ..Default::default()
    };
    let of_mint = client
        .get_signatures_for_address_with_config(&money.mint, config)
        .await
        .unwrap();
    let listed = of_mint
        .iter()
        .find(|it| it.signature == signatures[0].to_string())
        .expect("the mint's history holds it");
    assert_eq!(
        listed.memo.as_deref(),
        Some(format!("[{}] {MEMO}", MEMO.len()).as_str())
    );
    // Sent again, it does not pay again.
    assert!(
        send(&client, &good)
            .await
            .unwrap_err()
            .contains("already been processed")
    );
    assert_eq!(money.supply(&client).await, 1_250_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_transaction_that_a_fork_takes_back_lands_when_sent_again() {
    let dir = TempDir::new("fork");
    let mut chain = Localnet::start(dir.path()).await;
    let money = Money::create(&chain.client()).await;
    assert!(chain.stop().await.success());

    // Its blocks are held back and not written.
    chain
        .restart_with(&[("FAILPOINTS", "localnet.write=pause")])
        .await;
    let client = chain.client();
    let blockhash = client.get_latest_blockhash().await.unwrap();
    let transaction = money.signed(&[money.mint_to(7)], blockhash);
    let signature = send(&client, &transaction).await.unwrap();
    until_confirmed(&client, &signature).await;
    assert_eq!(money.supply(&client).await, 7);

    chain.kill9().await;
    chain.restart().await;
    let client = chain.client();
    let lost = client
        .get_signature_statuses_with_history(&[signature])
        .await
        .unwrap();
    assert_eq!(lost.value, [None]);
    assert_eq!(money.supply(&client).await, 0);

    assert_eq!(send(&client, &transaction).await.unwrap(), signature);
    until_confirmed(&client, &signature).await;
    assert_eq!(money.supply(&client).await, 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_chain_has_finalized_blocks_and_pubsub_at_once() {
    let chain = Localnet::start(State::Ephemeral).await;
    let client = chain.client();
    let finalized = CommitmentConfig::finalized();
    let slot = client.get_slot_with_commitment(finalized).await.unwrap();
    let (blockhash, last_valid_height) = client
        .get_latest_blockhash_with_commitment(finalized)
        .await
        .unwrap();
    assert!(slot >= 1);
    assert!(last_valid_height >= slot + 150);
    let blocks = client.get_blocks_with_commitment(0, None, finalized).await;
    assert!(blocks.unwrap().starts_with(&[0, 1]));
    let processed = CommitmentConfig::processed();
    assert!(
        client
            .is_blockhash_valid(&blockhash, processed)
            .await
            .unwrap()
    );
    assert_eq!(block(&client, 0).await.blockhash, chain.genesis_hash);
    walk(&client, 0, slot).await;

    let (mut socket, _) = tokio_tungstenite::connect_async(&chain.ws_url)
        .await
        .unwrap();
    let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"slotSubscribe"}"#;
    socket.send(subscribe.into()).await.unwrap();
    let notified = async {
        loop {
            let message = socket.next().await.unwrap().unwrap().to_string();
            if message.contains("slotNotification") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), notified)
        .await
        .expect("pubsub reports new slots");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_data_directories_are_two_chains() {
    let (one, other) = (TempDir::new("one"), TempDir::new("other"));
    let (one, other) = tokio::join!(Localnet::start(one.path()), Localnet::start(other.path()));
    let third = Localnet::start(State::Ephemeral).await;
    assert_ne!(one.genesis_hash, other.genesis_hash);
    assert_ne!(one.genesis_hash, third.genesis_hash);
    let answered = third.client().get_genesis_hash().await.unwrap();
    assert_eq!(answered.to_string(), third.genesis_hash);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_cannot_write_ends_with_one_sentence() {
    let dir = TempDir::new("full");
    let output = tokio::process::Command::new(PROGRAM)
        .args(["--rpc-addr", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .env("FAILPOINTS", "localnet.write=3*off->return")
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output)
        .await
        .expect("it ends by itself")
        .unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("cannot be read or written"), "{stderr}");
    assert!(stderr.contains(dir.path().to_str().unwrap()), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impossible_start_is_refused_with_one_sentence() {
    let dir = TempDir::new("refused");
    let mut chain = Localnet::start(dir.path()).await;

    let stderr = refusal(&["--ephemeral", "--rpc-addr", chain.rpc_addr()]);
    assert!(stderr.contains(chain.rpc_addr()), "{stderr}");
    assert!(stderr.contains("already in use"), "{stderr}");

    let path = dir.path().to_str().unwrap();
    let in_dir = ["--data-dir", path, "--rpc-addr", "127.0.0.1:0"];
    let stderr = refusal(&in_dir);
    let holder = format!("in use by process {}", chain.pid);
    assert!(stderr.contains(&holder), "{stderr}");

    assert!(chain.stop().await.success());
    // A file that no version of this program wrote.
    let mut file = std::fs::File::create(dir.path().join("chain.redb")).unwrap();
    file.write_all(b"SQLite format 3\0").unwrap();
    let stderr = refusal(&in_dir);
    assert!(stderr.contains(path), "{stderr}");

    let version_9 = redb::Database::create(dir.path().join("other.redb")).unwrap();
    let transaction = version_9.begin_write().unwrap();
    transaction
        .open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))
        .unwrap()
        .insert("version", 9_u32.to_le_bytes().as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(version_9);
    std::fs::rename(dir.path().join("other.redb"), dir.path().join("chain.redb")).unwrap();
    let stderr = refusal(&in_dir);
    assert!(stderr.contains("version 9"), "{stderr}");
}

/// Runs the program with flags that it must refuse; returns its one sentence.
fn refusal(flags: &[&str]) -> String {
    let output = std::process::Command::new(PROGRAM)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{flags:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}
