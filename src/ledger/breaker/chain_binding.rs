//! Rule 8: a ledger belongs permanently to one chain, one mint and one authority.

use solana_sdk::pubkey::Pubkey;
use sqlx::{FromRow, PgPool};
use thiserror::Error;

use super::opening::open_if_identity_changed;
use super::scan_request::{ScanRequest, request_scan};
use crate::chain::Endpoints;

/// The chain, mint, authority and decimals that the ledger is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainBinding {
    /// Base58: distinguishes one cluster from another.
    pub genesis_hash: String,
    pub mint: Pubkey,
    pub authority: Pubkey,
    /// The mint's.
    pub decimals: u8,
}

/// The reason for which the service does not start on this ledger.
#[derive(Debug, Error)]
pub enum BindingError {
    #[error(
        "this ledger belongs to the chain with genesis hash {stored}, but the RPC endpoint is on {found}: point SOLANA_RPC_URL at the ledger's chain, or DATABASE_URL at another database"
    )]
    Genesis { stored: String, found: String },
    #[error(
        "this ledger belongs to the mint {stored}, but SOLANA_MINT_ADDRESS is {found}: name the ledger's mint, or point DATABASE_URL at another database"
    )]
    Mint { stored: String, found: String },
    #[error(
        "this ledger belongs to the mint authority {stored}, but SOLANA_KEYPAIR_PATH holds the key of {found}: name the file of the ledger's authority"
    )]
    Authority { stored: String, found: String },
    #[error(
        "this ledger counts in {stored} decimals, but TOKENIZATION_DECIMALS is {found}: they must be equal"
    )]
    Decimals { stored: i16, found: u8 },
    #[error(
        "this ledger belongs to the chain with genesis hash {stored}, but RPC endpoint {endpoint} is on {found}: all endpoints of SOLANA_RPC_URL must be on one chain"
    )]
    TwoChains {
        stored: String,
        endpoint: String,
        found: String,
    },
    #[error("the ledger is not bound to any chain yet: no service has started on this database")]
    Unbound,
    #[error("the ledger holds {what} that cannot be read: {value}")]
    Unreadable { what: &'static str, value: String },
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

#[derive(FromRow)]
struct StoredBinding {
    genesis_hash: String,
    mint_address: String,
    authority: String,
    decimals: i16,
}

/// Binds a new ledger, or checks that an old one belongs to this chain; then checks whether the ledger went backwards.
///
/// A new ledger's watermark is 0: if the database was lost but the chain was not, the first scan finds what was paid before and
/// opens the breaker. The scan may be long, so the start only requests it from the resolver. Returns the request: this process signs
/// once a scan that covers it is finished.
pub async fn bind(
    pool: &PgPool,
    endpoints: &Endpoints,
    expected: &ChainBinding,
) -> Result<ScanRequest, BindingError> {
    sqlx::query(
        "INSERT INTO ledger
             (genesis_hash, mint_address, authority, decimals,
              system_identifier, timeline, incarnation, server_start, watermark_slot)
         SELECT $1, $2, $3, $4,
                identity.system_identifier, identity.timeline, identity.incarnation, identity.server_start, 0
         FROM database_identity() AS identity
         ON CONFLICT DO NOTHING",
    )
    .bind(&expected.genesis_hash)
    .bind(expected.mint.to_string())
    .bind(expected.authority.to_string())
    .bind(i16::from(expected.decimals))
    .execute(pool)
    .await?;
    let stored = row(pool).await?.ok_or(BindingError::Unbound)?;
    compare(&stored, expected)?;
    one_chain(endpoints, &stored.genesis_hash).await?;
    open_if_identity_changed(pool).await?;
    Ok(request_scan(pool).await?)
}

/// Checks a ledger that was bound before against these settings and returns its binding, for a process that signs nothing and
/// starts while no endpoint answers. It calls [`bind`] once one does.
pub async fn bind_offline(
    pool: &PgPool,
    mint: Pubkey,
    decimals: u8,
) -> Result<ChainBinding, BindingError> {
    let bound = binding(pool).await?;
    let stored = row(pool).await?.ok_or(BindingError::Unbound)?;
    let expected = ChainBinding {
        mint,
        decimals,
        ..bound.clone()
    };
    compare(&stored, &expected)?;
    open_if_identity_changed(pool).await?;
    Ok(bound)
}

/// Checks that every endpoint that answers is on the ledger's chain. One that does not answer now is checked before it is used.
async fn one_chain(endpoints: &Endpoints, genesis_hash: &str) -> Result<(), BindingError> {
    for endpoint in endpoints.iter() {
        match endpoint.genesis_hash().await {
            Ok(found) if found != genesis_hash => {
                return Err(BindingError::TwoChains {
                    stored: genesis_hash.to_owned(),
                    endpoint: endpoint.name().to_owned(),
                    found,
                });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "endpoint did not report its chain"),
        }
    }
    Ok(())
}

/// Reads the binding of this ledger.
pub async fn binding(pool: &PgPool) -> Result<ChainBinding, BindingError> {
    let row = row(pool).await?.ok_or(BindingError::Unbound)?;
    let address = |what, text: &str| {
        text.parse().map_err(|_| BindingError::Unreadable {
            what,
            value: text.to_owned(),
        })
    };
    Ok(ChainBinding {
        mint: address("a mint address", &row.mint_address)?,
        authority: address("an authority", &row.authority)?,
        decimals: u8::try_from(row.decimals).map_err(|_| BindingError::Unreadable {
            what: "a number of decimals",
            value: row.decimals.to_string(),
        })?,
        genesis_hash: row.genesis_hash,
    })
}

async fn row(pool: &PgPool) -> sqlx::Result<Option<StoredBinding>> {
    sqlx::query_as(
        "SELECT genesis_hash, mint_address, authority, decimals
         FROM ledger",
    )
    .fetch_optional(pool)
    .await
}

fn compare(stored: &StoredBinding, expected: &ChainBinding) -> Result<(), BindingError> {
    let (mint, authority) = (expected.mint.to_string(), expected.authority.to_string());
    if stored.genesis_hash != expected.genesis_hash {
        return Err(BindingError::Genesis {
            stored: stored.genesis_hash.clone(),
            found: expected.genesis_hash.clone(),
        });
    }
    if stored.mint_address != mint {
        return Err(BindingError::Mint {
            stored: stored.mint_address.clone(),
            found: mint,
        });
    }
    if stored.authority != authority {
        return Err(BindingError::Authority {
            stored: stored.authority.clone(),
            found: authority,
        });
    }
    if stored.decimals != i16::from(expected.decimals) {
        return Err(BindingError::Decimals {
            stored: stored.decimals,
            found: expected.decimals,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_chain_mint_authority_or_decimals_is_refused_in_one_sentence() {
        let bound = ChainBinding {
            genesis_hash: "genesis".to_owned(),
            mint: Pubkey::new_unique(),
            authority: Pubkey::new_unique(),
            decimals: 9,
        };
        let stored = StoredBinding {
            genesis_hash: bound.genesis_hash.clone(),
            mint_address: bound.mint.to_string(),
            authority: bound.authority.to_string(),
            decimals: 9,
        };
        assert!(compare(&stored, &bound).is_ok());
        let others = [
            (
                ChainBinding {
                    genesis_hash: "another".to_owned(),
                    ..bound.clone()
                },
                "SOLANA_RPC_URL",
            ),
            (
                ChainBinding {
                    mint: Pubkey::new_unique(),
                    ..bound.clone()
                },
                "SOLANA_MINT_ADDRESS",
            ),
            (
                ChainBinding {
                    authority: Pubkey::new_unique(),
                    ..bound.clone()
                },
                "SOLANA_KEYPAIR_PATH",
            ),
            (
                ChainBinding {
                    decimals: 6,
                    ..bound.clone()
                },
                "TOKENIZATION_DECIMALS",
            ),
        ];
        for (other, named) in others {
            let refused = compare(&stored, &other).unwrap_err().to_string();
            assert!(
                refused.contains(named) && !refused.contains('\n'),
                "{refused}"
            );
        }
    }
}
