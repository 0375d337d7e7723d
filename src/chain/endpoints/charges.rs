//! Reads the chain's charges from an endpoint.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use solana_client::client_error::Result as ClientResult;
use solana_client::rpc_request::RpcRequest;
use solana_client::rpc_response::Response;
use solana_sdk::message::Message;
use solana_sdk::program_pack::Pack;
use solana_sdk::pubkey::Pubkey;
use spl_token_interface::state::Account;

use super::endpoint::Endpoint;
use super::selection::Endpoints;
use crate::chain::commitment::Finality;
use crate::chain::error::ChainError;
use crate::chain::error_reason::UnusableAnswer;
use crate::chain::parameters::ChainCharges;

impl Endpoint {
    /// Reads all of them; `payer` stands for the payer of the transaction whose fee is queried.
    pub(in crate::chain) async fn charges(
        &self,
        payer: &Pubkey,
    ) -> Result<ChainCharges, ChainError> {
        let (token_account_rent, fee_payer_minimum, per_signature) = tokio::try_join!(
            self.rent_of(Account::LEN),
            self.rent_of(0),
            self.signature_fee(payer)
        )?;
        Ok(ChainCharges {
            token_account_rent,
            fee_payer_minimum,
            per_signature,
        })
    }

    async fn rent_of(&self, bytes: usize) -> Result<u64, ChainError> {
        let rent = self.hot().get_minimum_balance_for_rent_exemption(bytes);
        self.answer(rent.await)
    }

    /// The fee of a transaction with one signature and no priority fee. Nodes answer it for legacy messages only, and charge
    /// the same for each format.
    async fn signature_fee(&self, payer: &Pubkey) -> Result<u64, ChainError> {
        let commitment = self.commitment(Finality::Confirmed);
        let blockhash = self
            .hot()
            .get_latest_blockhash_with_commitment(commitment)
            .await;
        let (blockhash, _) = self.answer(blockhash)?;
        let memo =
            spl_memo_interface::instruction::build_memo(&spl_memo_interface::v3::ID, b"fee", &[]);
        let message = Message::new_with_blockhash(&[memo], Some(payer), &blockhash);
        let parameters = json!([STANDARD.encode(message.serialize()), commitment]);
        let answer: ClientResult<Response<Option<u64>>> = self
            .hot()
            .send(RpcRequest::GetFeeForMessage, parameters)
            .await;
        self.answer(answer)?
            .value
            .ok_or_else(|| self.unusable(UnusableAnswer::NoFee))
    }
}

impl Endpoints {
    /// Reads them from the first endpoint that answers, and stores them.
    pub async fn refresh_charges(&self, payer: &Pubkey) -> Result<ChainCharges, ChainError> {
        let mut failure = None;
        for endpoint in self.iter().filter(|endpoint| endpoint.is_usable()) {
            match endpoint.charges(payer).await {
                Ok(charges) => {
                    self.parameters().set_charges(charges, Instant::now());
                    return Ok(charges);
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| self.none_usable()))
    }

    /// As they were reported last, or read now.
    pub async fn known_charges(&self, payer: &Pubkey) -> Result<ChainCharges, ChainError> {
        match self.parameters().charges() {
            Some(charges) => Ok(charges),
            None => self.refresh_charges(payer).await,
        }
    }
}
