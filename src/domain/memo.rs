//! The memo of a mint transaction: its number in the ledger, and the Merkle root of the readings that it pays.
//!
//! Format: `g1`, then base64url without padding of the number (6 bytes, big-endian) and the root (32 bytes), which are 53 ASCII
//! bytes (`docs/receipts.md`). With the memo the chain alone shows what was paid, even after the database was restored from an
//! older backup. It counts only in transactions that our authority signed, because anyone can write such a text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::merkle::Hash32;
use super::mint_number::MintNumber;

/// The length of every memo: 2 bytes of prefix, and 38 bytes in base64.
pub const MEMO_BYTES: usize = 53;

/// It is also the version of the format.
const PREFIX: &str = "g1";
const ROOT_BYTES: usize = 32;
/// In `getSignaturesForAddress`, RPC nodes prefix a memo with its length in brackets.
const RPC_PREFIX: &str = "[53] ";

/// The memo of one mint transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Memo {
    number: MintNumber,
    root: Hash32,
}

impl Memo {
    pub fn new(number: MintNumber, root: Hash32) -> Memo {
        Memo { number, root }
    }

    /// The mint transaction's number in the ledger.
    pub fn number(&self) -> MintNumber {
        self.number
    }

    /// The Merkle root of the readings that it pays.
    pub fn root(&self) -> Hash32 {
        self.root
    }

    pub fn encode(&self) -> String {
        let mut bytes = [0; MintNumber::BYTES + ROOT_BYTES];
        let (number, root) = bytes.split_at_mut(MintNumber::BYTES);
        number.copy_from_slice(&self.number.to_bytes());
        root.copy_from_slice(&self.root);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Parses exactly what [`encode`](Memo::encode) writes, so that one memo has one text. Returns `None` for other texts.
    pub fn parse(text: &str) -> Option<Memo> {
        let encoded = text.strip_prefix(PREFIX)?;
        // This engine rejects padding, foreign characters and stray bits at the end.
        let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let (number, root) = bytes.split_first_chunk()?;
        Some(Memo::new(
            MintNumber::from_bytes(*number),
            root.try_into().ok()?,
        ))
    }

    /// Parses the `memo` that RPC nodes list with a signature: `[53] g1…`. A transaction with several memos is not ours.
    pub fn parse_rpc(text: &str) -> Option<Memo> {
        Memo::parse(text.strip_prefix(RPC_PREFIX).unwrap_or(text))
    }
}

/// The text on chain.
impl fmt::Display for Memo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(raw: u64) -> MintNumber {
        MintNumber::try_from(raw).unwrap()
    }

    fn memo() -> impl Strategy<Value = Memo> {
        (any::<[u8; MintNumber::BYTES]>(), any::<Hash32>())
            .prop_map(|(number, root)| Memo::new(MintNumber::from_bytes(number), root))
    }

    #[test]
    fn stray_bits_padding_and_other_texts_are_rejected() {
        let text = Memo::new(number(258), [7; 32]).encode();
        assert!(Memo::parse(&text).is_some());
        let (head, _) = text.split_at(text.len() - 1);
        // The last character carries four bits: of 64 possible ones, 16 are canonical.
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let taken = alphabet
            .chars()
            .filter(|last| Memo::parse(&format!("{head}{last}")).is_some());
        assert_eq!(taken.count(), 16);
        for foreign in [
            format!("{text}="),
            format!("{text}A"),
            head.to_owned(),
            format!(" {text}"),
            format!("{text}\n"),
            text.replacen("g1", "g2", 1),
            text.replacen("g1", "G1", 1),
            text[2..].to_owned(),
            format!("g1{}", "+".repeat(51)),
            String::new(),
            "g1".to_owned(),
        ] {
            assert_eq!(Memo::parse(&foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn the_rpc_form_parses_only_when_the_transaction_has_one_memo() {
        let memo = Memo::new(number(1), [1; 32]);
        assert_eq!(Memo::parse_rpc(&format!("[53] {memo}")), Some(memo));
        assert_eq!(Memo::parse_rpc(&memo.encode()), Some(memo));
        assert_eq!(Memo::parse_rpc(&format!("[53] {memo}; [53] {memo}")), None);
        assert_eq!(Memo::parse_rpc(&format!("[52] {memo}")), None);
        assert_eq!(Memo::parse_rpc(&format!("[53] [53] {memo}")), None);
        assert_eq!(Memo::parse_rpc("[5] hello"), None);
    }

    proptest! {
        #[test]
        fn a_memo_parses_from_its_53_bytes(memo in memo()) {
            let text = memo.encode();
            prop_assert!(text.is_ascii());
            prop_assert_eq!(text.len(), MEMO_BYTES);
            prop_assert_eq!(Memo::parse(&text), Some(memo));
        }

        #[test]
        fn a_memo_has_one_text(memo in memo(), at in 0..MEMO_BYTES, byte in 0x20_u8..0x7f) {
            let mut text = memo.encode().into_bytes();
            text[at] = byte;
            let text = String::from_utf8(text).unwrap();
            if let Some(parsed) = Memo::parse(&text) {
                prop_assert_eq!(parsed.encode(), text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let text = format!("g1{text}");
            if let Some(parsed) = Memo::parse(&text) {
                prop_assert_eq!(parsed.encode(), text);
            }
        }
    }
}
