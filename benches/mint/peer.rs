//! The local chain alone: transactions that were built and signed before, sent by one process without service and database. The
//! service cannot mint faster than that.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use gridtokenx::domain::{
    BaseUnits, ComputeUnitPrice, Memo, MintNumber, Payment, TransactionFormat, TransactionTerms,
    Wallet, instructions,
};
use serde::Serialize;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_config::RpcSendTransactionConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signature, Signer as _};
use solana_sdk::transaction::{Transaction, VersionedTransaction};
use spl_token_interface::state::Mint;

use super::usage::resident_mb;
use crate::backend::LocalChain;
use crate::process::cpu_seconds;

const FUNDING_LAMPORTS: u64 = 1_000_000_000_000;
/// Transactions under way at once; more make the chain no faster.
const SENDERS: usize = 32;
/// The most that one question about signatures may name.
const STATUSES_MAX: usize = 256;
const LIMIT: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// The most account creations that a transaction has room for.
const CREATIONS_PER_TRANSACTION: usize = 7;

/// The figures of the chain alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PeerRound {
    pub payments: usize,
    /// From the first send until all are confirmed.
    pub seconds: f64,
    /// Processor seconds.
    pub chain: f64,
    pub chain_mb: f64,
}

/// A chain with a mint, and wallets that have a token account.
struct Peer {
    rpc: RpcClient,
    payer: Keypair,
    mint: Pubkey,
    wallets: Vec<Wallet>,
}

/// Sends so many transactions of so many payments each.
pub async fn round(wallets: usize, transactions: usize, payments: usize) -> Result<PeerRound> {
    ensure!(
        payments <= wallets,
        "fewer wallets than payments in a transaction"
    );
    let chain = LocalChain::start().await?;
    let peer = Peer::prepare(&chain, wallets).await?;
    let signed = peer.sign(transactions, payments, Accounts::Exist).await?;
    let (cpu, started) = (cpu_seconds(chain.pid)?, Instant::now());
    peer.land(&signed).await?;
    Ok(PeerRound {
        payments: transactions * payments,
        seconds: started.elapsed().as_secs_f64(),
        chain: cpu_seconds(chain.pid)? - cpu,
        chain_mb: resident_mb(chain.pid)?,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accounts {
    Exist,
    AreCreated,
}

impl Peer {
    async fn prepare(chain: &LocalChain, wallets: usize) -> Result<Peer> {
        let commitment = CommitmentConfig::confirmed();
        let rpc = RpcClient::new_with_commitment(chain.rpc_url.clone(), commitment);
        let payer = Keypair::new();
        rpc.request_airdrop(&payer.pubkey(), FUNDING_LAMPORTS)
            .await?;
        let started = Instant::now();
        while rpc.get_balance(&payer.pubkey()).await? == 0 {
            ensure!(started.elapsed() < LIMIT, "the payer was not funded");
            tokio::time::sleep(POLL_EVERY).await;
        }
        let mint = create_mint(&rpc, &payer).await?;
        let wallets = (0..wallets).map(|_| Wallet::from_stored(Keypair::new().pubkey().to_bytes()));
        let peer = Peer {
            rpc,
            payer,
            mint,
            wallets: wallets.collect(),
        };
        let creations = peer.wallets.len().div_ceil(CREATIONS_PER_TRANSACTION);
        let signed = peer
            .sign(creations, CREATIONS_PER_TRANSACTION, Accounts::AreCreated)
            .await?;
        peer.land(&signed).await?;
        Ok(peer)
    }

    /// Signs transactions that pay the wallets in turn.
    async fn sign(
        &self,
        transactions: usize,
        payments: usize,
        accounts: Accounts,
    ) -> Result<Vec<VersionedTransaction>> {
        let blockhash = self.rpc.get_latest_blockhash().await?;
        let key = self.payer.pubkey();
        let mut wallets = self.wallets.iter().cycle();
        let mut signed = Vec::with_capacity(transactions);
        for number in 1..=transactions {
            let payments: Vec<Payment> = wallets
                .by_ref()
                .take(payments)
                .map(|wallet| Payment {
                    wallet: *wallet,
                    base_units: BaseUnits::new(1_250_000_000),
                    create_account: accounts == Accounts::AreCreated,
                })
                .collect();
            let memo = Memo::new(MintNumber::try_from(number as u64)?, [7; 32]);
            let terms = TransactionTerms {
                format: TransactionFormat::V1,
                price: ComputeUnitPrice::from_micro_lamports(0),
            };
            let built = instructions(&payments, &self.mint, &key, &key, &memo, terms);
            let mut message = built.compile(&key)?;
            message.set_recent_blockhash(blockhash);
            signed.push(VersionedTransaction::try_new(message, &[&self.payer])?);
        }
        Ok(signed)
    }

    /// Sends them all, and waits until all are confirmed.
    async fn land(&self, transactions: &[VersionedTransaction]) -> Result<()> {
        let config = RpcSendTransactionConfig {
            skip_preflight: true,
            ..RpcSendTransactionConfig::default()
        };
        let signatures: Vec<Signature> = stream::iter(transactions)
            .map(|transaction| self.rpc.send_transaction_with_config(transaction, config))
            .buffer_unordered(SENDERS)
            .try_collect()
            .await?;
        let started = Instant::now();
        for asked in signatures.chunks(STATUSES_MAX) {
            while !self.all_confirmed(asked).await? {
                ensure!(started.elapsed() < LIMIT, "not confirmed within {LIMIT:?}");
                tokio::time::sleep(POLL_EVERY).await;
            }
        }
        Ok(())
    }

    async fn all_confirmed(&self, signatures: &[Signature]) -> Result<bool> {
        let statuses = self.rpc.get_signature_statuses(signatures).await?.value;
        for status in statuses.iter().flatten() {
            ensure!(
                status.err.is_none(),
                "a transaction failed: {:?}",
                status.err
            );
        }
        let is_confirmed = |status: &_| {
            Option::as_ref(status).is_some_and(
                |status: &solana_transaction_status::TransactionStatus| {
                    status.satisfies_commitment(CommitmentConfig::confirmed())
                },
            )
        };
        Ok(statuses.iter().all(is_confirmed))
    }
}

async fn create_mint(rpc: &RpcClient, payer: &Keypair) -> Result<Pubkey> {
    let mint = Keypair::new();
    let rent = rpc
        .get_minimum_balance_for_rent_exemption(Mint::LEN)
        .await?;
    let create = solana_system_interface::instruction::create_account(
        &payer.pubkey(),
        &mint.pubkey(),
        rent,
        Mint::LEN as u64,
        &spl_token_interface::ID,
    );
    let initialize = spl_token_interface::instruction::initialize_mint2(
        &spl_token_interface::ID,
        &mint.pubkey(),
        &payer.pubkey(),
        None,
        9,
    )?;
    let transaction = Transaction::new_signed_with_payer(
        &[create, initialize],
        Some(&payer.pubkey()),
        &[payer, &mint],
        rpc.get_latest_blockhash().await?,
    );
    rpc.send_and_confirm_transaction(&transaction)
        .await
        .context("the mint could not be created")?;
    Ok(mint.pubkey())
}
