//! What every mint transaction says about itself on chain: which one it is, and which readings it pays.
//!
//! `g1`, then base64url without padding of the transaction's number (6 bytes, big-endian) and its Merkle root (32 bytes):
//! 53 ASCII bytes. With it the chain alone tells what was paid, even when the books went backwards. It counts only in
//! transactions that our authority signed, since anybody may write such a text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::merkle::Hash32;

/// Length of every memo: 2 bytes of prefix, and 38 bytes in base64.
pub const MEMO_BYTES: usize = 53;
/// Numbers of mint transactions stay below: 48 bits, enough for 8,900 years at a thousand a second.
pub const NUMBER_LIMIT: u64 = 1 << 48;

/// Also the version of the format.
const PREFIX: &str = "g1";
const NUMBER_BYTES: usize = 6;
const ROOT_BYTES: usize = 32;
/// How RPC nodes show a memo in `getSignaturesForAddress`: its length in brackets, then the text.
const RPC_PREFIX: &str = "[53] ";

/// The memo of one mint transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memo {
    number: u64,
    root: Hash32,
}

impl Memo {
    /// `None` when the number does not fit its 48 bits.
    pub fn new(number: u64, root: Hash32) -> Option<Memo> {
        (number < NUMBER_LIMIT).then_some(Memo { number, root })
    }

    /// The mint transaction's number in our books.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The Merkle root over the readings that it pays.
    pub fn root(&self) -> Hash32 {
        self.root
    }

    pub fn encode(&self) -> String {
        let mut bytes = [0; NUMBER_BYTES + ROOT_BYTES];
        let (number, root) = bytes.split_at_mut(NUMBER_BYTES);
        number.copy_from_slice(&self.number.to_be_bytes()[8 - NUMBER_BYTES..]);
        root.copy_from_slice(&self.root);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Strict: exactly what [`encode`](Memo::encode) writes, so that one memo has one text. `None`: it is not one of ours.
    pub fn parse(text: &str) -> Option<Memo> {
        let encoded = text.strip_prefix(PREFIX)?;
        // This engine refuses padding, foreign characters and stray bits at the end.
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let (number, root) = bytes.split_first_chunk::<NUMBER_BYTES>()?;
        let number = number
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte));
        Memo::new(number, root.try_into().ok()?)
    }

    /// From the `memo` that RPC nodes list with a signature: `[53] g1…`. Several memos in one transaction are not ours.
    pub fn parse_rpc(text: &str) -> Option<Memo> {
        Memo::parse(text.strip_prefix(RPC_PREFIX).unwrap_or(text))
    }
}

/// The text as it stands on chain.
impl fmt::Display for Memo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.encode())
    }
}
