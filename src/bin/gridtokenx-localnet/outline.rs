//! Reads from a transaction's signed bytes what a list of transactions needs, and skips the rest.
//!
//! `getSignaturesForAddress` reads every transaction of the chain. Decoding each completely takes a hundred times longer than
//! reading its addresses.

use solana_sdk::hash::Hash;
use solana_sdk::message::compiled_instruction::CompiledInstruction;
use solana_sdk::message::{Message, MessageHeader, VersionedMessage};
use solana_sdk::pubkey::Pubkey;
use solana_sdk::signature::Signature;
use solana_sdk::transaction::VersionedTransaction;

/// Precedes a message with lookup tables.
const VERSION_0: u8 = 0x80;
const VERSION_BIT: u8 = 0x80;

/// The transaction with only the instructions of the `wanted` programs. `None` for bytes that are not a transaction, and for a
/// message of a later version.
pub fn outline(bytes: &[u8], wanted: &[Pubkey]) -> Option<VersionedTransaction> {
    let mut reader = Reader(bytes);
    let mut signatures = Vec::new();
    for _ in 0..reader.length()? {
        signatures.push(Signature::from(reader.array::<64>()?));
    }
    if reader.0.first()? & VERSION_BIT != 0 && reader.byte()? != VERSION_0 {
        return None;
    }
    let [required, readonly_signed, readonly_unsigned] = reader.array()?;
    let keys: Vec<Pubkey> = reader
        .length()
        .and_then(|keys| reader.take(keys.checked_mul(32)?))?
        .as_chunks()
        .0
        .iter()
        .map(|key| Pubkey::new_from_array(*key))
        .collect();
    let blockhash = reader.array()?;
    let mut instructions = Vec::new();
    for _ in 0..reader.length()? {
        let program = reader.byte()?;
        let accounts = reader.length().and_then(|accounts| reader.take(accounts))?;
        let data = reader.length().and_then(|data| reader.take(data))?;
        // A program never comes from a lookup table.
        if wanted.contains(keys.get(usize::from(program))?) {
            instructions.push(CompiledInstruction {
                program_id_index: program,
                accounts: accounts.to_vec(),
                data: data.to_vec(),
            });
        }
    }
    Some(VersionedTransaction {
        signatures,
        message: VersionedMessage::Legacy(Message {
            header: MessageHeader {
                num_required_signatures: required,
                num_readonly_signed_accounts: readonly_signed,
                num_readonly_unsigned_accounts: readonly_unsigned,
            },
            account_keys: keys,
            recent_blockhash: Hash::new_from_array(blockhash),
            instructions,
        }),
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Solana's "compact u16": seven bits a byte, the lowest first, at most three bytes.
    fn length(&mut self) -> Option<usize> {
        let mut length = 0;
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use solana_sdk::instruction::{AccountMeta, Instruction};
    use solana_sdk::message::v0;

    const MEMO: Pubkey = spl_memo_interface::v3::ID;

    fn instructions() -> Vec<Instruction> {
        let account = AccountMeta::new(Pubkey::new_from_array([5; 32]), false);
        vec![
            Instruction::new_with_bytes(MEMO, &[b'm'; 200], Vec::new()),
            Instruction::new_with_bytes(spl_token_interface::ID, &[7], vec![account]),
        ]
    }

    fn signed_bytes(message: VersionedMessage) -> (VersionedTransaction, Vec<u8>) {
        let transaction = VersionedTransaction {
            signatures: vec![Signature::from([9; 64])],
            message,
        };
        let bytes = bincode::serialize(&transaction).unwrap();
        (transaction, bytes)
    }

    #[test]
    fn an_outline_has_the_addresses_and_the_memos() {
        let payer = Pubkey::new_from_array([1; 32]);
        let hash = Hash::new_from_array([4; 32]);
        let legacy = Message::new_with_blockhash(&instructions(), Some(&payer), &hash);
        let version_0 = v0::Message::try_compile(&payer, &instructions(), &[], hash).unwrap();
        for message in [
            VersionedMessage::Legacy(legacy),
            VersionedMessage::V0(version_0),
        ] {
            let (transaction, bytes) = signed_bytes(message);
            let outline = outline(&bytes, &[MEMO]).unwrap();
            assert_eq!(outline.signatures, transaction.signatures);
            let (outlined, message) = (&outline.message, &transaction.message);
            assert_eq!(outlined.header(), message.header());
            assert_eq!(
                outlined.static_account_keys(),
                message.static_account_keys()
            );
            assert_eq!(outlined.recent_blockhash(), &hash);
            assert_eq!(outlined.instructions(), &message.instructions()[..1]);
        }
    }

    #[test]
    fn bytes_that_end_early_are_not_a_transaction() {
        let payer = Pubkey::new_from_array([1; 32]);
        let message = Message::new(&instructions(), Some(&payer));
        let (_, bytes) = signed_bytes(VersionedMessage::Legacy(message));
        for end in 0..bytes.len() {
            assert_eq!(outline(&bytes[..end], &[MEMO]), None, "{end} bytes");
        }
    }
}
