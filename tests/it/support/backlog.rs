//! A backlog of readings without jobs, written directly to the tables: as lost jobs or weeks with auto-mint off leave it.

use chrono::{DateTime, TimeDelta, Utc};
use solana_sdk::signature::{Keypair, Signer};
use sqlx::PgPool;
use uuid::Uuid;

/// Meters with as many readings each, of 0.01 kWh (10,000,000 base units), pending and due. Gives the meters' serials.
pub async fn insert_backlog(pool: &PgPool, meters: usize, readings_each: usize) -> Vec<String> {
    let serials: Vec<String> = (0..meters)
        .map(|_| format!("backlog-{}", Uuid::now_v7()))
        .collect();
    let wallets: Vec<Vec<u8>> = (0..meters)
        .map(|_| Keypair::new().pubkey().to_bytes().to_vec())
        .collect();
    let ids: Vec<i64> = sqlx::query_scalar(
        "INSERT INTO meters (serial, owner, wallet, interval_minutes, rollout_bucket)
         SELECT serial, 'prosumer', wallet, 15, 0
         FROM UNNEST($1::TEXT[], $2::BYTEA[]) AS new (serial, wallet)
         RETURNING id",
    )
    .bind(&serials)
    .bind(&wallets)
    .fetch_all(pool)
    .await
    .unwrap();
    let newest = Utc::now() - TimeDelta::hours(1);
    for (id, wallet) in ids.iter().zip(&wallets) {
        let readings: Vec<Uuid> = (0..readings_each).map(|_| Uuid::now_v7()).collect();
        let starts: Vec<DateTime<Utc>> = (1..=readings_each)
            .map(|back| newest - TimeDelta::minutes(15 * back as i64))
            .collect();
        sqlx::query(
            "INSERT INTO readings (id, meter, interval_start, interval_end, kwh, base_units, wallet, salt)
             SELECT id, $1, starts_at, starts_at + INTERVAL '15 minutes', 0.01, 10000000, $2,
                    decode(md5(id::TEXT), 'hex')
             FROM UNNEST($3::UUID[], $4::TIMESTAMPTZ[]) AS new (id, starts_at)",
        )
        .bind(id)
        .bind(wallet)
        .bind(&readings)
        .bind(&starts)
        .execute(pool)
        .await
        .unwrap();
    }
    serials
}
