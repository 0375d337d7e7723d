//! The domain's types survive a round trip through Postgres, alone and in arrays. A stored value that a type cannot represent is
//! an error of decoding.

use std::fmt::Debug;

use gridtokenx::db::BigInt;
use gridtokenx::domain::{
    BaseUnits, Kwh, MeterSerial, MintNumber, MintTransactionState, ReadingState, TxSignature,
    Wallet,
};
use sqlx::postgres::{PgHasArrayType, Postgres};
use sqlx::{Decode, Encode, PgPool, Row, Type};

use crate::support::Grid;

/// Binds the values as one array of the SQL type, and reads the elements back one by one.
async fn round_trip<T>(pool: &PgPool, unnest: &'static str, values: Vec<T>)
where
    T: Type<Postgres>
        + PgHasArrayType
        + for<'q> Encode<'q, Postgres>
        + for<'r> Decode<'r, Postgres>
        + Clone
        + Debug
        + PartialEq
        + Send
        + Sync
        + Unpin
        + 'static,
{
    let read: Vec<T> = sqlx::query_scalar(unnest)
        .bind(values.clone())
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(read, values);
    for value in values {
        let row = sqlx::query("SELECT $1")
            .bind(value.clone())
            // Prepared statements are cached by their text, and this text has another type each time.
            .persistent(false)
            .fetch_one(pool)
            .await
            .unwrap();
        let read: T = row.get(0);
        assert_eq!(read, value);
    }
}

async fn is_refused<T>(pool: &PgPool, select: &'static str) -> bool
where
    T: Type<Postgres> + for<'r> Decode<'r, Postgres> + Send + Unpin,
{
    let read: sqlx::Result<T> = sqlx::query_scalar(select).fetch_one(pool).await;
    matches!(read, Err(sqlx::Error::ColumnDecode { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_from_the_database_as_they_were_bound() {
    let grid = Grid::without_service(&[]).await;
    let pool = &grid.pool;
    let bytes = "SELECT * FROM UNNEST($1::BYTEA[])";
    round_trip(
        pool,
        bytes,
        vec![Wallet::from_stored([7; 32]), Wallet::from_stored([0; 32])],
    )
    .await;
    round_trip(pool, bytes, vec![TxSignature::from_bytes([9; 64])]).await;
    let numeric = "SELECT * FROM UNNEST($1::NUMERIC[])";
    round_trip(
        pool,
        numeric,
        vec![BaseUnits::ZERO, BaseUnits::new(1), BaseUnits::MAX],
    )
    .await;
    let kwh = ["1.5", "0.000000000000000001", "99999999999999999999"];
    let kwh = kwh.map(|text| Kwh::parse(text).unwrap());
    round_trip(pool, numeric, kwh.to_vec()).await;
    let bigint = "SELECT * FROM UNNEST($1::BIGINT[])";
    round_trip(
        pool,
        bigint,
        vec![MintNumber::try_from(1_u64).unwrap(), MintNumber::MAX],
    )
    .await;
    let largest = u64::try_from(i64::MAX).unwrap();
    round_trip(
        pool,
        bigint,
        vec![BigInt::from(0_u64), BigInt::from(largest)],
    )
    .await;
    let text = "SELECT * FROM UNNEST($1::TEXT[])";
    let serials = ["M1", "Zähler", "電力計#7"];
    let serials = serials.map(|serial| MeterSerial::parse(serial).unwrap());
    round_trip(pool, text, serials.to_vec()).await;
    round_trip(pool, text, ReadingState::ALL.to_vec()).await;
    round_trip(pool, text, MintTransactionState::ALL.to_vec()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_value_that_a_type_cannot_represent_is_an_error() {
    let grid = Grid::without_service(&[]).await;
    let pool = &grid.pool;
    assert!(is_refused::<Wallet>(pool, "SELECT '\\x00'::BYTEA").await);
    assert!(is_refused::<TxSignature>(pool, "SELECT '\\x00'::BYTEA").await);
    assert!(is_refused::<BaseUnits>(pool, "SELECT 1.5::NUMERIC").await);
    assert!(is_refused::<BaseUnits>(pool, "SELECT -1::NUMERIC").await);
    assert!(is_refused::<Kwh>(pool, "SELECT 0::NUMERIC").await);
    assert!(is_refused::<MintNumber>(pool, "SELECT -1::BIGINT").await);
    assert!(is_refused::<MintNumber>(pool, "SELECT (1::BIGINT << 48)").await);
    assert!(is_refused::<BigInt>(pool, "SELECT -1::BIGINT").await);
    assert!(is_refused::<ReadingState>(pool, "SELECT 'paid'::TEXT").await);
    assert!(is_refused::<MintTransactionState>(pool, "SELECT 'pending'::TEXT").await);
    // A number above 63 bits is refused when it is bound.
    let bound = sqlx::query_scalar("SELECT $1::BIGINT").bind(BigInt::from(u64::MAX));
    let read: sqlx::Result<i64> = bound.fetch_one(pool).await;
    assert!(read.is_err(), "{read:?}");
}
