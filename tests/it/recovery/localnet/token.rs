//! Sets up a payer and a mint on a chain, and builds transactions that mint.

use std::time::{Duration, Instant};

use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_client::SerializableTransaction;
use solana_client::rpc_config::RpcSendTransactionConfig;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::hash::Hash;
use solana_sdk::instruction::Instruction;
use solana_sdk::message::{VersionedMessage, v1};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::{Keypair, Signature, Signer};
use solana_sdk::transaction::{Transaction, VersionedTransaction};
use solana_system_interface::instruction::create_account;
use spl_associated_token_account_interface::address::get_associated_token_address;
use spl_associated_token_account_interface::instruction::create_associated_token_account_idempotent;
use spl_token_interface::instruction::{initialize_mint2, mint_to};

pub const DECIMALS: u8 = 9;
pub const MINT_BYTES: usize = 82;
pub const MEMO: &str = "g1AAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A payer with money, a mint, and a token account that receives.
pub struct Money {
    pub payer: Keypair,
    pub mint: Pubkey,
    pub wallet: Pubkey,
    pub account: Pubkey,
}

impl Money {
    pub async fn create(client: &RpcClient) -> Self {
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

    pub fn mint_to(&self, amount: u64) -> Instruction {
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

    pub fn signed(&self, instructions: &[Instruction], blockhash: Hash) -> Transaction {
        Transaction::new_signed_with_payer(
            instructions,
            Some(&self.payer.pubkey()),
            &[&self.payer],
            blockhash,
        )
    }

    /// As a transaction of version 1, with limits that no test reaches; unset they would be 0.
    pub fn signed_version_1(
        &self,
        instructions: &[Instruction],
        blockhash: Hash,
    ) -> VersionedTransaction {
        let config = v1::TransactionConfig::empty()
            .with_compute_unit_limit(1_000_000)
            .with_loaded_accounts_data_size_limit(64 * 1024 * 1024);
        let message = v1::Message::try_compile_with_config(
            &self.payer.pubkey(),
            instructions,
            blockhash,
            config,
        );
        let message = VersionedMessage::V1(message.unwrap());
        VersionedTransaction::try_new(message, &[&self.payer]).unwrap()
    }

    pub async fn supply(&self, client: &RpcClient) -> u64 {
        let supply = client.get_token_supply(&self.mint).await.unwrap();
        supply.amount.parse().unwrap()
    }

    pub async fn balance(&self, client: &RpcClient) -> u64 {
        let balance = client.get_token_account_balance(&self.account).await;
        balance.unwrap().amount.parse().unwrap()
    }
}

pub fn memo(text: &str) -> Instruction {
    Instruction::new_with_bytes(spl_memo_interface::v3::ID, text.as_bytes(), Vec::new())
}

/// Sends once, without preflight, so that only the chain decides whether it lands.
pub async fn send(
    client: &RpcClient,
    transaction: &impl SerializableTransaction,
) -> Result<Signature, String> {
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

pub async fn until_confirmed(client: &RpcClient, signature: &Signature) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !client.confirm_transaction(signature).await.unwrap() {
        assert!(Instant::now() < deadline, "{signature} is not confirmed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn until_confirmed_or_failed(client: &RpcClient, signature: &Signature) {
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
