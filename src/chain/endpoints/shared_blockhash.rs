//! The blockhash that an endpoint returned last, shared by the batches of a moment.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use solana_sdk::hash::Hash;

/// A recent blockhash with everything that is needed to prove later that a transaction signed on it is dead.
#[derive(Clone, Copy, Debug)]
pub struct RecentBlockhash {
    pub hash: Hash,
    /// Slot at which the endpoint returned it: the blockhash's own slot or a later one.
    pub slot: u64,
    /// The last block height that may hold a transaction signed on it.
    pub last_valid_block_height: u64,
}

/// Batches of this time share a blockhash. It costs a transaction at most this much of its life, and at ten batches a second it
/// saves nine calls of ten. Transactions on one blockhash differ by the number in their memo.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// The blockhash that an endpoint returned last.
#[derive(Debug, Default)]
pub(in crate::chain) struct LastBlockhash {
    last: Mutex<Option<(RecentBlockhash, Instant)>>,
    /// Held while a batch asks: batches that begin at the same moment make one call.
    pub turn: tokio::sync::Mutex<()>,
}

impl LastBlockhash {
    pub fn recent(&self, now: Instant) -> Option<RecentBlockhash> {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.filter(|(_, at)| now.duration_since(*at) < SHARED_FOR)
            .map(|(blockhash, _)| blockhash)
    }

    pub fn set(&self, blockhash: RecentBlockhash, asked_at: Instant) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((blockhash, asked_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blockhash_is_shared_for_a_second_from_the_question_on() {
        let (last, now) = (LastBlockhash::default(), Instant::now());
        assert!(last.recent(now).is_none());
        let blockhash = RecentBlockhash {
            hash: Hash::default(),
            slot: 70,
            last_valid_block_height: 200,
        };
        last.set(blockhash, now);
        assert!(last.recent(now + SHARED_FOR / 2).is_some());
        assert!(last.recent(now + SHARED_FOR).is_none());
    }
}
