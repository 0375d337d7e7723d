//! Statuses of signatures as an endpoint reports them, item by item: one that cannot be read costs no other.

use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;
use solana_transaction_status::TransactionConfirmationStatus;

use super::endpoints::{Endpoint, ListMethod, ListQuery, RpcClass};
use super::error::ChainError;
use super::error_reason::{CallProblem, UnusableAnswer};
use super::transaction_failure::TransactionFailure;
use crate::domain::TxSignature;

/// The source of statuses at an endpoint, with the budget that a query spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusSource {
    /// Its cache of the last minutes: a hot call.
    Recent,
    /// Its whole history: a background call.
    History,
}

/// One signature's status as an endpoint reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownStatus {
    /// Proves nothing: it may have landed all the same.
    NotShown,
    /// Something stands there that cannot be read. It proves nothing, and least of all that the signature is absent.
    Unreadable,
    OnChain {
        slot: u64,
        /// `None`: without an error.
        failure: Option<TransactionFailure>,
        commitment: TransactionConfirmationStatus,
    },
}

impl Endpoint {
    /// The statuses of these signatures in their order, in as few calls as the endpoint allows.
    pub async fn signature_statuses(
        &self,
        signatures: &[TxSignature],
        source: StatusSource,
    ) -> Result<Vec<ShownStatus>, ChainError> {
        let mut statuses = Vec::with_capacity(signatures.len());
        let mut query = ListQuery::new(self, ListMethod::SignatureStatuses, signatures);
        while let Some(part) = query.next_part() {
            match self.statuses_of(part, source).await {
                Ok(found) => {
                    query.answered();
                    statuses.extend(found);
                }
                Err(error) => query.refused(error)?,
            }
        }
        Ok(statuses)
    }

    async fn statuses_of(
        &self,
        signatures: &[TxSignature],
        source: StatusSource,
    ) -> Result<Vec<ShownStatus>, ChainError> {
        let encoded: Vec<String> = signatures.iter().map(ToString::to_string).collect();
        let (client, history) = match source {
            StatusSource::Recent => (self.client(RpcClass::Hot), false),
            StatusSource::History => (self.client(RpcClass::LookUp), true),
        };
        let request = RpcRequest::GetSignatureStatuses;
        let parameters = json!([encoded, { "searchTransactionHistory": history }]);
        let answer: Value = self.answer(client.send(request, parameters).await)?;
        let Some(listed) = answer["value"].as_array() else {
            return Err(self.unusable(UnusableAnswer::Call {
                method: "getSignatureStatuses",
                problem: CallProblem::of_value(&answer["value"]),
            }));
        };
        if listed.len() != signatures.len() {
            return Err(self.unusable(UnusableAnswer::WrongCount {
                items: "signatures",
                requested: signatures.len(),
                answered: listed.len(),
            }));
        }
        Ok(listed.iter().map(read).collect())
    }
}

fn read(status: &Value) -> ShownStatus {
    if status.is_null() {
        return ShownStatus::NotShown;
    }
    let commitment = commitment_of(status);
    match (status["slot"].as_u64(), commitment) {
        (Some(slot), Some(commitment)) => ShownStatus::OnChain {
            slot,
            failure: TransactionFailure::read(&status["err"]),
            commitment,
        },
        _ => ShownStatus::Unreadable,
    }
}

/// Nodes that do not name the commitment count the blocks on top: none and no number mean that it is final.
fn commitment_of(status: &Value) -> Option<TransactionConfirmationStatus> {
    match status["confirmationStatus"].as_str() {
        Some("processed") => Some(TransactionConfirmationStatus::Processed),
        Some("confirmed") => Some(TransactionConfirmationStatus::Confirmed),
        Some("finalized") => Some(TransactionConfirmationStatus::Finalized),
        Some(_) => None,
        None => match (&status["confirmations"], status.get("confirmations")) {
            (Value::Null, Some(_)) => Some(TransactionConfirmationStatus::Finalized),
            (Value::Number(_), _) => Some(TransactionConfirmationStatus::Processed),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_cannot_be_read_is_neither_absent_nor_landed() {
        use TransactionConfirmationStatus::{Confirmed, Finalized, Processed};
        let on_chain = |commitment| ShownStatus::OnChain {
            slot: 7,
            failure: None,
            commitment,
        };
        for (status, expected) in [
            (json!(null), ShownStatus::NotShown),
            (
                json!({"slot": 7, "confirmations": 1, "err": null, "confirmationStatus": "confirmed"}),
                on_chain(Confirmed),
            ),
            (
                json!({"slot": 7, "confirmations": null, "err": null, "confirmationStatus": "finalized"}),
                on_chain(Finalized),
            ),
            (
                json!({"slot": 7, "confirmations": null, "err": null}),
                on_chain(Finalized),
            ),
            (
                json!({"slot": 7, "confirmations": 12, "err": null}),
                on_chain(Processed),
            ),
            (
                json!({"slot": 7, "err": null, "confirmationStatus": "certain"}),
                ShownStatus::Unreadable,
            ),
            (
                json!({"slot": "7", "err": null, "confirmationStatus": "finalized"}),
                ShownStatus::Unreadable,
            ),
            (json!({"err": null}), ShownStatus::Unreadable),
            (json!("landed"), ShownStatus::Unreadable),
            (json!([]), ShownStatus::Unreadable),
        ] {
            assert_eq!(read(&status), expected, "{status}");
        }
        let failed = json!({"slot": 7, "confirmationStatus": "finalized", "err": {"InstructionError": [1, "ErrorOf2028"]}});
        let ShownStatus::OnChain { failure, .. } = read(&failed) else {
            panic!("{failed} is a status");
        };
        assert!(failure.is_some());
    }
}
