//! The local chain keeps its books: through kill -9 under load, through a restart, and in what it refuses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::GetConfirmedSignaturesForAddress2Config;
use solana_client::rpc_config::{RpcBlockConfig, RpcSendTransactionConfig, RpcTransactionConfig};
use solana_commitment_config::CommitmentConfig;
use solana_sdk::hash::Hash;
use solana_sdk::instruction::Instruction;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signature, Signer};
use solana_sdk::transaction::Transaction;
use solana_system_interface::instruction::create_account;
use solana_transaction_status::{TransactionDetails, UiConfirmedBlock, UiTransactionEncoding};
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_token_interface::instruction::{initialize_mint2, mint_to};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;

use crate::support::localnet::{Localnet, PROGRAM, State, TempDir};

const DECIMALS: u8 = 9;
const MINT_BYTES: usize = 82;
const MEMO: &str = "g1AAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A payer with money, a mint, and a token account that receives.
struct Money {
    payer: Keypair,
    mint: Pubkey,
    wallet: Pubkey,
    account: Pubkey,
}

impl Money {
    async fn create(client: &RpcClient) -> Self {
        let payer = Keypair::new();
        let airdrop = client
            .request_airdrop(&payer.pubkey(), 100_000_000_000)
            .await
            .unwrap();
        until_confirmed(client, &airdrop).await;
        let mint = Keypair::new();
        let wallet = Pubkey::new_unique();
        let rent = client
            .get_minimum_balance_for_rent_exemption(MINT_BYTES)
            .await
            .unwrap();
        let token = spl_token_interface::ID;
        let instructions = [
            create_account(
                &payer.pubkey(),
                &mint.pubkey(),
                rent,
                MINT_BYTES as u64,
                &token,
            ),
            initialize_mint2(&token, &mint.pubkey(), &payer.pubkey(), None, DECIMALS).unwrap(),
            create_associated_token_account_idempotent(
                &payer.pubkey(),
                &wallet,
                &mint.pubkey(),
                &token,
            ),
        ];
        let blockhash = client.get_latest_blockhash().await.unwrap();
        let transaction = Transaction::new_signed_with_payer(
            &instructions,
            Some(&payer.pubkey()),
            &[&payer, &mint],
            blockhash,
        );
        let signature = send(client, &transaction).await.unwrap();
        until_confirmed(client, &signature).await;
        Self {
            account: get_associated_token_address(&wallet, &mint.pubkey()),
            mint: mint.pubkey(),
            payer,
            wallet,
        }
    }

    fn mint_to(&self, amount: u64) -> Instruction {
        mint_to(
            &spl_token_interface::ID,
            &self.mint,
            &self.account,
            &self.payer.pubkey(),
            &[],
            amount,
        )
        .unwrap()
    }

    fn signed(&self, instructions: &[Instruction], blockhash: Hash) -> Transaction {
        Transaction::new_signed_with_payer(
            instructions,
            Some(&self.payer.pubkey()),
            &[&self.payer],
            blockhash,
        )
    }

    async fn supply(&self, client: &RpcClient) -> u64 {
        let supply = client.get_token_supply(&self.mint).await.unwrap();
        supply.amount.parse().unwrap()
    }

    async fn balance(&self, client: &RpcClient) -> u64 {
        let balance = client.get_token_account_balance(&self.account).await;
        balance.unwrap().amount.parse().unwrap()
    }
}

fn memo(text: &str) -> Instruction {
    Instruction::new_with_bytes(spl_memo_interface::v3::ID, text.as_bytes(), Vec::new())
}

/// Sends once, without preflight: what happens to it is the chain's business.
async fn send(client: &RpcClient, transaction: &Transaction) -> Result<Signature, String> {
    let config = RpcSendTransactionConfig {
        skip_preflight: true,
        max_retries: Some(0),
        ..RpcSendTransactionConfig::default()
    };
    client
        .send_transaction_with_config(transaction, config)
        .await
        .map_err(|error| error.to_string())
}

async fn until_confirmed(client: &RpcClient, signature: &Signature) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !client.confirm_transaction(signature).await.unwrap() {
        assert!(Instant::now() < deadline, "{signature} is not confirmed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn block(client: &RpcClient, slot: u64) -> UiConfirmedBlock {
    let config = RpcBlockConfig {
        encoding: Some(UiTransactionEncoding::Base64),
        transaction_details: Some(TransactionDetails::Signatures),
        rewards: Some(false),
        commitment: Some(CommitmentConfig::confirmed()),
        max_supported_transaction_version: Some(0),
    };
    let block = client.get_block_with_config(slot, config).await;
    block.unwrap_or_else(|error| panic!("block of slot {slot}: {error}"))
}

/// Walks the blocks of `first..=last`: each names the one before, heights and times grow. Returns where each
/// signature is.
async fn walk(client: &RpcClient, first: u64, last: u64) -> BTreeMap<u64, Vec<String>> {
    let slots = client
        .get_blocks_with_commitment(first, Some(last), CommitmentConfig::confirmed())
        .await
        .unwrap();
    assert_eq!(slots, (first..=last).collect::<Vec<_>>(), "getBlocks");
    let mut signatures = BTreeMap::new();
    let mut before: Option<UiConfirmedBlock> = None;
    for slot in slots {
        let block = block(client, slot).await;
        assert_eq!(block.parent_slot, slot.saturating_sub(1));
        if let Some(before) = &before {
            assert_eq!(block.previous_blockhash, before.blockhash, "slot {slot}");
            assert_eq!(block.block_height, before.block_height.map(|it| it + 1));
            assert!(block.block_time >= before.block_time, "slot {slot}");
        }
        signatures.insert(slot, block.signatures.clone().unwrap());
        before = Some(block);
    }
    signatures
}

/// Which of `sent` landed, with the sum of their amounts.
async fn landed(client: &RpcClient, sent: &HashMap<Signature, u64>) -> (HashSet<String>, u64) {
    let signatures: Vec<_> = sent.keys().copied().collect();
    let (mut landed, mut sum) = (HashSet::new(), 0);
    for some in signatures.chunks(256) {
        let statuses = client
            .get_signature_statuses_with_history(some)
            .await
            .unwrap()
            .value;
        for (signature, status) in some.iter().zip(statuses) {
            if let Some(status) = status {
                assert_eq!(status.err, None);
                landed.insert(signature.to_string());
                sum += sent[signature];
            }
        }
    }
    (landed, sum)
}

/// Sends mints from many tasks until the chain is gone; returns what was signed, whether or not it was answered.
async fn load(
    rpc_url: &str,
    money: &Arc<Money>,
    counter: &Arc<AtomicU64>,
    blockhash: Hash,
    answered: &Arc<Notify>,
) -> (JoinSet<()>, Arc<Mutex<HashMap<Signature, u64>>>) {
    const SENDERS: usize = 24;
    const MINTS_PER_TRANSACTION: u64 = 10;
    let sent = Arc::new(Mutex::new(HashMap::new()));
    let mut senders = JoinSet::new();
    let client = Arc::new(RpcClient::new(rpc_url.to_owned()));
    for _ in 0..SENDERS {
        let (client, money, counter) = (client.clone(), money.clone(), counter.clone());
        let (sent, answered) = (sent.clone(), answered.clone());
        senders.spawn(async move {
            loop {
                let first = counter.fetch_add(MINTS_PER_TRANSACTION, Ordering::Relaxed);
                // Every amount is used once, so every signature is new.
                let amounts = first..first + MINTS_PER_TRANSACTION;
                let mut instructions = vec![memo(MEMO)];
                instructions.extend(amounts.clone().map(|amount| money.mint_to(amount)));
                let transaction = money.signed(&instructions, blockhash);
                let signature = transaction.signatures[0];
                sent.lock().await.insert(signature, amounts.sum());
                if send(&client, &transaction).await.is_err() {
                    return;
                }
                answered.notify_one();
            }
        });
    }
    (senders, sent)
}

/// Returns at a moment for a kill, with the slot of shortly before. Sends are answered when their block closes, so
/// half of the moments are while it is written; the others are anywhere.
async fn run_under_load(client: &RpcClient, answered: &Notify, dice: &mut StdRng) -> u64 {
    const ANSWER_MAX: Duration = Duration::from_secs(20);
    tokio::time::sleep(Duration::from_millis(dice.random_range(300..1_000))).await;
    let processed = CommitmentConfig::processed();
    let slot = client.get_slot_with_commitment(processed).await.unwrap();
    if dice.random() {
        // One may be left from before.
        for _ in 0..2 {
            tokio::time::timeout(ANSWER_MAX, answered.notified())
                .await
                .expect("the chain answers");
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..25))).await;
    }
    slot
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supply_equals_the_landed_mints_after_every_kill() {
    const KILLS: usize = 20;
    /// At most so many closed blocks wait to be written (see the program's `persist.rs`).
    const BLOCKS_ROLLED_BACK_MAX: u64 = 14;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);

    let dir = TempDir::new("kill9");
    let mut chain = Localnet::start(dir.path()).await;
    let genesis = chain.genesis_hash.clone();
    let money = Arc::new(Money::create(&chain.client()).await);
    let counter = Arc::new(AtomicU64::new(1));
    let mut all_sent = HashMap::new();
    let (mut landed_before, mut supply_before, mut first_slot) = (0, 0, chain.slot);

    for round in 0..KILLS {
        let client = chain.client();
        let blockhash = client.get_latest_blockhash().await.unwrap();
        let answered = Arc::new(Notify::new());
        let (mut senders, sent) =
            load(&chain.rpc_url, &money, &counter, blockhash, &answered).await;
        let slot_before = run_under_load(&client, &answered, &mut dice).await;
        chain.kill9().await;
        while senders.join_next().await.is_some() {}
        let sent = std::mem::take(&mut *sent.lock().await);
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
        assert!(landed.is_subset(&found), "what landed is in a block");
        let others = found.len() - landed.len();
        // The airdrop and the mint's creation.
        assert_eq!(others, if round == 0 { 2 } else { 0 });

        let newest = client.get_slot().await.unwrap();
        let time = block(&client, newest).await.block_time.unwrap();
        assert!((time - unix_seconds()).abs() <= 5, "block time {time}");

        landed_before += landed.len();
        supply_before = supply;
        first_slot = chain.slot;
        all_sent.extend(sent);
    }
    // What ever landed is still there.
    let (landed, sum) = landed(&chain.client(), &all_sent).await;
    assert_eq!((landed.len(), sum), (landed_before, supply_before));
    assert!(landed.len() > KILLS, "the chain was under load");
    println!("{} of {} landed", landed.len(), all_sent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_forgets_nothing() {
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

    let asked = Instant::now();
    assert!(chain.stop().await.success());
    assert!(asked.elapsed() < Duration::from_secs(2));
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

async fn until_confirmed_or_failed(client: &RpcClient, signature: &Signature) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let statuses = client.get_signature_statuses(&[*signature]).await.unwrap();
        if let Some(status) = &statuses.value[0]
            && status.satisfies_commitment(CommitmentConfig::confirmed())
        {
            return;
        }
        assert!(Instant::now() < deadline, "{signature} is not confirmed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn times_of_blocks(client: &RpcClient, first: u64, last: u64) -> Vec<i64> {
    let mut times = Vec::new();
    for slot in first..=last {
        times.push(client.get_block_time(slot).await.unwrap());
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_transaction_that_a_fork_takes_back_lands_when_sent_again() {
    let dir = TempDir::new("fork");
    let mut chain = Localnet::start(dir.path()).await;
    let money = Money::create(&chain.client()).await;
    assert!(chain.stop().await.success());

    // Its blocks stay in the air.
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
async fn a_new_chain_has_finalized_blocks_at_once() {
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
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("cannot be read or written"), "{said}");
    assert!(said.contains(dir.path().to_str().unwrap()), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_cannot_be_is_refused_with_one_sentence() {
    let dir = TempDir::new("refused");
    let mut chain = Localnet::start(dir.path()).await;

    let said = refusal(&["--ephemeral", "--rpc-addr", chain.rpc_addr()]);
    assert!(said.contains(chain.rpc_addr()), "{said}");
    assert!(said.contains("already in use"), "{said}");

    let path = dir.path().to_str().unwrap();
    let in_dir = ["--data-dir", path, "--rpc-addr", "127.0.0.1:0"];
    let said = refusal(&in_dir);
    let holder = format!("in use by process {}", chain.pid);
    assert!(said.contains(&holder), "{said}");

    assert!(chain.stop().await.success());
    // A file that no version of this program wrote.
    let mut file = std::fs::File::create(dir.path().join("chain.redb")).unwrap();
    file.write_all(b"SQLite format 3\0").unwrap();
    let said = refusal(&in_dir);
    assert!(said.contains(path), "{said}");

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
    let said = refusal(&in_dir);
    assert!(said.contains("version 9"), "{said}");
}

/// Runs the program with flags that it must refuse; returns its one sentence.
fn refusal(flags: &[&str]) -> String {
    let output = std::process::Command::new(PROGRAM)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{flags:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}
