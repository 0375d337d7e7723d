//! Represents the domain's types in SQL.
//!
//! A row decodes straight into them (`#[derive(FromRow)]`), and a statement binds them, alone or as an array for `UNNEST`. What
//! the column holds and the type cannot represent is an error of decoding, never a silent conversion.
//!
//! | type | column |
//! |---|---|
//! | [`Wallet`] | `BYTEA`, 32 bytes |
//! | [`TxSignature`] | `BYTEA`, 64 bytes |
//! | `Hash32`, salts | `BYTEA`: arrays of bytes, which sqlx supports |
//! | [`BaseUnits`] | `NUMERIC(20, 0)` |
//! | [`Kwh`] | `NUMERIC` |
//! | [`MintNumber`] | `BIGINT` |
//! | [`BigInt`] | `BIGINT`: slots, block heights, lamports, counts, limits |
//! | [`MeterSerial`] | `TEXT` |
//! | [`ReadingState`], [`MintTransactionState`] | `TEXT` |

use rust_decimal::Decimal;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

use crate::domain::{
    BaseUnits, Kwh, MeterSerial, MintNumber, MintTransactionState, ReadingState, TxSignature,
    Wallet,
};

/// A number that is never negative, in a BIGINT column: a slot, a block height, an amount of lamports, a count or a limit.
///
/// One above 2^63 − 1 fails when it is bound, a negative one when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BigInt(u64);

impl BigInt {
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for BigInt {
    fn from(number: u64) -> BigInt {
        BigInt(number)
    }
}

impl From<u32> for BigInt {
    fn from(number: u32) -> BigInt {
        BigInt(number.into())
    }
}

/// A length: no platform that this program runs on has one above 64 bits.
impl From<usize> for BigInt {
    fn from(length: usize) -> BigInt {
        BigInt(u64::try_from(length).unwrap_or(u64::MAX))
    }
}

impl From<BigInt> for u64 {
    fn from(number: BigInt) -> u64 {
        number.0
    }
}

/// Gives `$domain` the SQL type of `$sql`: `$to_sql` represents a value, `$from_sql` reads it back or refuses it.
macro_rules! represented_as {
    ($domain:ty, $sql:ty, $to_sql:expr, $from_sql:expr) => {
        impl Type<Postgres> for $domain {
            fn type_info() -> PgTypeInfo {
                <$sql as Type<Postgres>>::type_info()
            }

            fn compatible(type_info: &PgTypeInfo) -> bool {
                <$sql as Type<Postgres>>::compatible(type_info)
            }
        }

        impl PgHasArrayType for $domain {
            fn array_type_info() -> PgTypeInfo {
                <$sql as PgHasArrayType>::array_type_info()
            }

            fn array_compatible(type_info: &PgTypeInfo) -> bool {
                <$sql as PgHasArrayType>::array_compatible(type_info)
            }
        }

        impl Encode<'_, Postgres> for $domain {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                let to_sql: fn(&$domain) -> Result<$sql, BoxDynError> = $to_sql;
                <$sql as Encode<'_, Postgres>>::encode_by_ref(&to_sql(self)?, buffer)
            }
        }

        impl<'r> Decode<'r, Postgres> for $domain {
            fn decode(value: PgValueRef<'r>) -> Result<$domain, BoxDynError> {
                let from_sql: fn($sql) -> Result<$domain, BoxDynError> = $from_sql;
                from_sql(<$sql as Decode<'r, Postgres>>::decode(value)?)
            }
        }
    };
}

represented_as!(Wallet, [u8; 32], |wallet| Ok(wallet.bytes()), |bytes| Ok(
    Wallet::from_stored(bytes)
));
represented_as!(
    TxSignature,
    [u8; TxSignature::BYTES],
    |signature| Ok(signature.bytes()),
    |bytes| Ok(TxSignature::from_bytes(bytes))
);
represented_as!(
    BaseUnits,
    Decimal,
    |base_units| Ok(base_units.to_decimal()),
    |amount| Ok(BaseUnits::from_decimal(amount)?)
);
represented_as!(Kwh, Decimal, |kwh| Ok(kwh.as_decimal()), |amount| Ok(
    Kwh::from_decimal(amount)?
));
represented_as!(MintNumber, i64, |number| Ok(i64::from(*number)), |number| {
    Ok(MintNumber::try_from(number)?)
});
represented_as!(
    BigInt,
    i64,
    |number| Ok(i64::try_from(number.0)?),
    |number| Ok(BigInt(u64::try_from(number)?))
);
represented_as!(
    MeterSerial,
    String,
    |serial| Ok(serial.as_str().to_owned()),
    |serial| Ok(MeterSerial::from_stored(serial))
);
represented_as!(
    ReadingState,
    String,
    |state| Ok(state.as_str().to_owned()),
    |word| Ok(word.parse()?)
);
represented_as!(
    MintTransactionState,
    String,
    |state| Ok(state.as_str().to_owned()),
    |word| Ok(word.parse()?)
);

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<'q, T: Encode<'q, Postgres>>(value: &T) -> Result<Vec<u8>, BoxDynError> {
        let mut buffer = PgArgumentBuffer::default();
        let _ = value.encode_by_ref(&mut buffer)?;
        Ok(buffer.to_vec())
    }

    #[test]
    fn a_value_is_bound_as_its_column_holds_it() {
        assert_eq!(encoded(&Wallet::from_stored([7; 32])).unwrap(), [7_u8; 32]);
        assert_eq!(
            encoded(&TxSignature::from_bytes([9; 64])).unwrap(),
            [9_u8; 64]
        );
        let number = MintNumber::try_from(258_u64).unwrap();
        assert_eq!(encoded(&number).unwrap(), 258_i64.to_be_bytes());
        assert_eq!(
            encoded(&BigInt::from(258_u64)).unwrap(),
            258_i64.to_be_bytes()
        );
        assert_eq!(encoded(&ReadingState::Minted).unwrap(), b"minted");
        assert_eq!(encoded(&MintTransactionState::Dead).unwrap(), b"dead");
        let serial = MeterSerial::parse("M1").unwrap();
        assert_eq!(encoded(&serial).unwrap(), b"M1");
        let amount = Decimal::new(125, 2);
        assert_eq!(
            encoded(&Kwh::from_decimal(amount).unwrap()).unwrap(),
            encoded(&amount).unwrap()
        );
        assert_eq!(
            encoded(&BaseUnits::MAX).unwrap(),
            encoded(&Decimal::from(u64::MAX)).unwrap()
        );
    }

    #[test]
    fn a_number_that_the_column_cannot_hold_is_refused() {
        let largest = u64::try_from(i64::MAX).unwrap();
        assert!(encoded(&BigInt::from(largest)).is_ok());
        assert!(encoded(&BigInt::from(largest + 1)).is_err());
    }
}
