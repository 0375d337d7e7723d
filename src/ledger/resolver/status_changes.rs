//! Sorts the statuses of one round by what has to be written or sent: pure.

use std::collections::HashMap;

use super::open_transactions::OpenTransaction;
use super::signature_status::SignatureStatus;
use crate::chain::TransactionFailure;
use crate::domain::{MintNumber, MintTransactionState};
use crate::ledger::transitions::Landed;

/// Look-ups on every endpoint in which a confirmed transaction is not seen before it counts as forked.
/// A wrong decision costs no more than a second `TokensMinted`: the same bytes are sent again and found landed.
const ROUNDS_TO_FORK: u32 = 5;

/// In how many look-ups in a row each confirmed transaction was not seen. Losing it costs nothing but time.
#[derive(Debug, Default)]
pub struct MissedRounds(HashMap<MintNumber, u32>);

impl MissedRounds {
    /// Whether it was confirmed and the last round did not see it.
    pub fn includes(&self, open: &OpenTransaction) -> bool {
        self.0.contains_key(&open.number)
    }
}

/// One round's statuses, by what they change.
#[derive(Debug, Default)]
pub struct StatusChanges {
    pub confirmed: Vec<Landed>,
    pub finalized: Vec<Landed>,
    pub failed: Vec<(MintNumber, TransactionFailure)>,
    pub forked: Vec<MintNumber>,
    pub to_send: Vec<OpenTransaction>,
}

impl StatusChanges {
    pub fn classify(
        &mut self,
        open: &OpenTransaction,
        status: SignatureStatus,
        missed: &mut MissedRounds,
    ) {
        let was_confirmed = open.state == MintTransactionState::Confirmed;
        let number = open.number;
        if status != SignatureStatus::NotSeen {
            missed.0.remove(&number);
        }
        match status {
            SignatureStatus::Confirmed { slot } if !was_confirmed => {
                self.confirmed.push(Landed { number, slot });
            }
            SignatureStatus::Finalized { slot } => {
                if !was_confirmed {
                    self.confirmed.push(Landed { number, slot });
                }
                self.finalized.push(Landed { number, slot });
            }
            SignatureStatus::Failed { error } => {
                // Confirmed without an error on a fork that was dropped, finalized with one on the surviving fork.
                if was_confirmed {
                    self.forked.push(number);
                }
                self.failed.push((number, error));
            }
            SignatureStatus::NotSeen if was_confirmed => {
                let rounds = missed.0.entry(number).or_default();
                *rounds += 1;
                if *rounds >= ROUNDS_TO_FORK {
                    missed.0.remove(&number);
                    self.forked.push(number);
                }
            }
            SignatureStatus::NotSeen => self.to_send.push(open.clone()),
            SignatureStatus::Confirmed { .. }
            | SignatureStatus::Unsettled
            | SignatureStatus::Unreadable => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use solana_sdk::signature::Signature;
    use solana_sdk::transaction::TransactionError;

    use super::*;

    fn open(state: MintTransactionState) -> OpenTransaction {
        OpenTransaction {
            number: MintNumber::try_from(7_u64).unwrap(),
            signature: Signature::default().into(),
            state,
            last_valid_block_height: 150,
            endpoint: "first".to_owned(),
            age_ms: 0,
        }
    }

    fn classified(
        state: MintTransactionState,
        status: SignatureStatus,
        missed: &mut MissedRounds,
    ) -> [usize; 5] {
        let mut changes = StatusChanges::default();
        changes.classify(&open(state), status, missed);
        [
            changes.confirmed.len(),
            changes.finalized.len(),
            changes.failed.len(),
            changes.forked.len(),
            changes.to_send.len(),
        ]
    }

    #[test]
    fn each_status_leads_to_its_change() {
        use MintTransactionState::{Confirmed, Quarantined, Recorded};
        let error = TransactionFailure::from(TransactionError::AccountNotFound);
        let failed = || SignatureStatus::Failed {
            error: error.clone(),
        };
        for (state, status, expected) in [
            (Recorded, SignatureStatus::NotSeen, [0, 0, 0, 0, 1]),
            (Quarantined, SignatureStatus::NotSeen, [0, 0, 0, 0, 1]),
            (Recorded, SignatureStatus::Unsettled, [0; 5]),
            (Recorded, SignatureStatus::Unreadable, [0; 5]),
            (Confirmed, SignatureStatus::Unreadable, [0; 5]),
            (
                Recorded,
                SignatureStatus::Confirmed { slot: 7 },
                [1, 0, 0, 0, 0],
            ),
            (Confirmed, SignatureStatus::Confirmed { slot: 7 }, [0; 5]),
            (
                Recorded,
                SignatureStatus::Finalized { slot: 7 },
                [1, 1, 0, 0, 0],
            ),
            (
                Confirmed,
                SignatureStatus::Finalized { slot: 7 },
                [0, 1, 0, 0, 0],
            ),
            (Recorded, failed(), [0, 0, 1, 0, 0]),
            (Confirmed, failed(), [0, 0, 1, 1, 0]),
        ] {
            let shown = format!("{state:?} {status:?}");
            let mut missed = MissedRounds::default();
            assert_eq!(classified(state, status, &mut missed), expected, "{shown}");
        }
    }

    #[test]
    fn a_confirmed_transaction_is_forked_only_after_several_rounds_in_a_row() {
        let mut missed = MissedRounds::default();
        let confirmed = MintTransactionState::Confirmed;
        let unseen =
            |missed: &mut MissedRounds| classified(confirmed, SignatureStatus::NotSeen, missed)[3];
        for _ in 1..ROUNDS_TO_FORK {
            assert_eq!(unseen(&mut missed), 0);
            assert!(missed.includes(&open(confirmed)));
        }
        classified(confirmed, SignatureStatus::Unsettled, &mut missed);
        assert!(!missed.includes(&open(confirmed)));
        for _ in 1..ROUNDS_TO_FORK {
            assert_eq!(unseen(&mut missed), 0);
        }
        assert_eq!(unseen(&mut missed), 1);
    }
}
