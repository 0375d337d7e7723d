//! One round: a new database and a new chain, intake while minting is off, then everything that waits is minted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use sqlx::PgPool;
use tokio::process::Command;

use super::Options;
use super::load::Meters;
use super::usage::{Usage, Used, resident_mb};
use crate::backend::{Backend, Service};

/// A round that mints less than a hundred readings a second is broken.
const MINT_LIMIT: Duration = Duration::from_secs(900);
const POLL_MINTED_EVERY: Duration = Duration::from_millis(100);
/// That question reads every reading.
const POLL_FINALIZED_EVERY: Duration = Duration::from_secs(1);

/// The figures of one round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub bulk_readings: usize,
    pub bulk: Used,
    pub single_readings: usize,
    pub single: Used,
    /// Of each single submission, sorted.
    #[serde(skip)]
    pub single_latencies_micros: Vec<u32>,
    pub minted_readings: usize,
    /// From switching minting on until no reading waits.
    pub mint: Used,
    pub transactions: usize,
    /// Several readings of one wallet in one transaction are one payment.
    pub payments: usize,
    pub fee_lamports: i64,
    /// Until everything is finalized, from the same moment.
    pub seconds_to_finalized: f64,
    pub service_mb: f64,
    pub chain_mb: f64,
}

/// Runs one round. The audit holds at its end, else it is an error.
pub async fn round(options: &Options, batch_size: u32) -> Result<Round> {
    let backend = Backend::start().await?;
    let batch_size = batch_size.to_string();
    let service = Service::start(
        &backend,
        &[("BLOCKCHAIN_MAX_BATCH_SIZE", batch_size.as_str())],
    )
    .await?;
    let wallets = usize::try_from(options.wallets)?;
    let meters = Meters::register(&service, wallets).await?;
    // The first payment of a wallet creates its token account: that is not measured.
    meters.submit_in_bulk(wallets).await?;
    until_none(&service.pool, NOT_FINALIZED, POLL_FINALIZED_EVERY).await?;
    meters.set_auto_mint(false).await?;

    let before_bulk = Usage::now(&backend, &service).await?;
    meters.submit_in_bulk(options.readings).await?;
    let before_single = Usage::now(&backend, &service).await?;
    let time = Duration::from_secs(options.seconds);
    let latencies_micros = meters.submit_singly(options.clients, time).await?;
    let after_single = Usage::now(&backend, &service).await?;

    let newest = newest_transaction(&service.pool).await?;
    let before_mint = Usage::now(&backend, &service).await?;
    let switched_on = Instant::now();
    meters.set_auto_mint(true).await?;
    until_none(&service.pool, NOT_MINTED, POLL_MINTED_EVERY).await?;
    let after_mint = Usage::now(&backend, &service).await?;
    until_none(&service.pool, NOT_FINALIZED, POLL_FINALIZED_EVERY).await?;
    let seconds_to_finalized = switched_on.elapsed().as_secs_f64();
    let (transactions, fee_lamports) = spent_since(&service.pool, newest).await?;
    let payments = payments_since(&service.pool, newest).await?;
    let round = Round {
        bulk_readings: options.readings,
        bulk: before_bulk.until(&before_single),
        single_readings: latencies_micros.len(),
        single: before_single.until(&after_single),
        minted_readings: options.readings + latencies_micros.len(),
        single_latencies_micros: latencies_micros,
        mint: before_mint.until(&after_mint),
        transactions: usize::try_from(transactions)?,
        payments: usize::try_from(payments)?,
        fee_lamports,
        seconds_to_finalized,
        service_mb: resident_mb(service.pid)?,
        chain_mb: resident_mb(backend.chain.pid)?,
    };
    audit(&backend, &service).await?;
    Ok(round)
}

const NOT_MINTED: &str =
    "SELECT EXISTS (SELECT FROM readings WHERE state NOT IN ('minted', 'finalized'))";
const NOT_FINALIZED: &str = "SELECT EXISTS (SELECT FROM readings WHERE state <> 'finalized')";

/// Polls until the question is answered with no.
async fn until_none(pool: &PgPool, question: &'static str, every: Duration) -> Result<()> {
    let started = Instant::now();
    while sqlx::query_scalar::<_, bool>(question)
        .fetch_one(pool)
        .await?
    {
        ensure!(
            started.elapsed() < MINT_LIMIT,
            "readings still wait after {MINT_LIMIT:?}"
        );
        tokio::time::sleep(every).await;
    }
    Ok(())
}

async fn newest_transaction(pool: &PgPool) -> Result<i64> {
    let newest = "SELECT COALESCE(max(number), 0) FROM mint_transactions";
    Ok(sqlx::query_scalar(newest).fetch_one(pool).await?)
}

/// Transactions after `number` that landed, and their fees.
async fn spent_since(pool: &PgPool, number: i64) -> Result<(i64, i64)> {
    let spent = sqlx::query_as(
        "SELECT count(*), COALESCE(sum(fee_lamports), 0)::BIGINT
         FROM mint_transactions
         WHERE number > $1 AND state = 'finalized'",
    );
    Ok(spent.bind(number).fetch_one(pool).await?)
}

/// Payments of the transactions after `number` that landed.
async fn payments_since(pool: &PgPool, number: i64) -> Result<i64> {
    let payments = sqlx::query_scalar(
        "SELECT count(DISTINCT (link.transaction, reading.wallet))
         FROM mint_transaction_readings AS link
         JOIN readings AS reading ON reading.id = link.reading
         WHERE link.transaction > $1 AND link.live",
    );
    Ok(payments.bind(number).fetch_one(pool).await?)
}

async fn audit(backend: &Backend, service: &Service) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_gridtokenx"))
        .args(["audit", "--json"])
        .env_clear()
        .env("DATABASE_URL", &service.database_url)
        .env("SOLANA_RPC_URL", &backend.chain.rpc_url)
        .env("GRIDTOKENX_DATA_DIR", service.data_dir())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "the audit does not hold: {} {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
