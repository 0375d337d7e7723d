//! The mint authority's key, used by a test directly.

use std::str::FromStr;

use gridtokenx::chain::read_keypair;
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_config::RpcSendTransactionConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::instruction::Instruction;
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signature, Signer};
use solana_sdk::transaction::{Transaction, VersionedTransaction};
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_token_interface::instruction::{AuthorityType, burn, mint_to, set_authority};

use super::consensus::Consensus;
use super::{Grid, Meter, eventually};

/// The mint, and the key that may mint: what a service has, and what an attacker who stole it would have.
pub struct Authority {
    pub mint: Pubkey,
    keypair: Keypair,
    pub rpc: RpcClient,
}

impl Authority {
    pub async fn of(grid: &Grid) -> Authority {
        Authority::through(grid, &grid.rpc_url).await
    }

    /// Sends through this endpoint.
    pub async fn through(grid: &Grid, rpc_url: &str) -> Authority {
        let mint: String = sqlx::query_scalar("SELECT mint_address FROM ledger")
            .fetch_one(&grid.pool)
            .await
            .unwrap();
        Authority {
            mint: Pubkey::from_str(&mint).unwrap(),
            keypair: read_keypair(&grid.data_dir.path().join("mint-authority.json")).unwrap(),
            rpc: RpcClient::new_with_commitment(
                rpc_url.to_owned(),
                Consensus::current().newest_commitment(),
            ),
        }
    }

    /// Pays for what [`send`](Self::send) sends.
    pub fn payer(&self) -> Pubkey {
        self.keypair.pubkey()
    }

    /// Mints to the meter's wallet, whose token account exists, without any service.
    pub fn mint_to(&self, meter: &Meter, base_units: u64) -> Instruction {
        let account = get_associated_token_address(&meter.wallet.pubkey(), &self.mint);
        let authority = self.keypair.pubkey();
        let token = spl_token_interface::ID;
        mint_to(&token, &self.mint, &account, &authority, &[], base_units).unwrap()
    }

    /// Mints so and waits until it is finalized. Returns the signature.
    pub async fn mint_by_hand(&self, meter: &Meter, base_units: u64) -> String {
        let by_hand = self.send(self.mint_to(meter, base_units), &[]).await;
        by_hand.to_string()
    }

    /// The meter's owner burns tokens.
    pub async fn burn(&self, meter: &Meter, base_units: u64) {
        let owner = meter.wallet.pubkey();
        let account = get_associated_token_address(&owner, &self.mint);
        let token = spl_token_interface::ID;
        let burned = burn(&token, &account, &self.mint, &owner, &[], base_units).unwrap();
        self.send(burned, &[&meter.wallet]).await;
    }

    /// The meter's owner gives the token account to another.
    pub fn give_away(&self, meter: &Meter, to: &Pubkey) -> Instruction {
        let owner = meter.wallet.pubkey();
        let account = get_associated_token_address(&owner, &self.mint);
        let authority = AuthorityType::AccountOwner;
        let token = spl_token_interface::ID;
        set_authority(&token, &account, Some(to), authority, &owner, &[]).unwrap()
    }

    /// Sends it, paid by the authority, and waits until it is finalized.
    pub async fn send(&self, instruction: Instruction, more: &[&Keypair]) -> Signature {
        let signature = self.send_at_once(&[instruction], more).await;
        self.until_finalized(&signature).await;
        signature
    }

    /// Sends them in one transaction, paid by the authority.
    pub async fn send_at_once(&self, instructions: &[Instruction], more: &[&Keypair]) -> Signature {
        let mut signers = vec![&self.keypair];
        signers.extend(more);
        let transaction = Transaction::new_signed_with_payer(
            instructions,
            Some(&self.keypair.pubkey()),
            &signers,
            self.rpc.get_latest_blockhash().await.unwrap(),
        );
        self.rpc.send_transaction(&transaction).await.unwrap()
    }

    /// Sends bytes that were signed before.
    pub async fn send_late(&self, transaction: &VersionedTransaction) -> Signature {
        // Preflight would check against the newest finalized block, which is older than their blockhash.
        let config = RpcSendTransactionConfig {
            skip_preflight: true,
            ..RpcSendTransactionConfig::default()
        };
        let sent = self.rpc.send_transaction_with_config(transaction, config);
        sent.await.unwrap()
    }

    pub async fn until_finalized(&self, signature: &Signature) {
        eventually(&format!("{signature} is finalized"), async || {
            let status = self
                .rpc
                .get_signature_statuses(&[*signature])
                .await
                .unwrap();
            let status = status.value.into_iter().next().flatten()?;
            assert_eq!(status.err, None);
            status
                .satisfies_commitment(CommitmentConfig::finalized())
                .then_some(())
        })
        .await;
    }

    pub async fn supply(&self) -> u64 {
        let supply = self.rpc.get_token_supply(&self.mint).await.unwrap();
        supply.amount.parse().unwrap()
    }
}
