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
/// Begins a transaction of version 1 (SIMD-0385): its signatures follow its message.
const VERSION_1: u8 = 0x81;
const VERSION_BIT: u8 = 0x80;
/// Each bit of version 1's configuration mask announces a value of this size; the priority fee has two bits.
const CONFIG_VALUE_BYTES: usize = 4;

/// The transaction with only the instructions of the `wanted` programs. `None` for bytes that are not a transaction, and for a
/// message of a later version.
pub fn outline(bytes: &[u8], wanted: &[Pubkey]) -> Option<VersionedTransaction> {
    match bytes.first()? {
        &VERSION_1 => outline_version_1(Reader(bytes), wanted),
        _ => outline_legacy_or_version_0(Reader(bytes), wanted),
    }
}

fn outline_legacy_or_version_0(
    mut reader: Reader<'_>,
    wanted: &[Pubkey],
) -> Option<VersionedTransaction> {
    let mut signatures = Vec::new();
    for _ in 0..reader.length()? {
        signatures.push(Signature::from(reader.array::<64>()?));
    }
    if reader.0.first()? & VERSION_BIT != 0 && reader.byte()? != VERSION_0 {
        return None;
    }
    let header = reader.header()?;
    let keys = reader.length().and_then(|keys| reader.addresses(keys))?;
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
    Some(outlined(signatures, header, keys, blockhash, instructions))
}

fn outline_version_1(mut reader: Reader<'_>, wanted: &[Pubkey]) -> Option<VersionedTransaction> {
    reader.byte()?;
    let header = reader.header()?;
    let config_mask = u32::from_le_bytes(reader.array()?);
    let blockhash = reader.array()?;
    let instruction_count = usize::from(reader.byte()?);
    let address_count = usize::from(reader.byte()?);
    let keys = reader.addresses(address_count)?;
    let config_values = usize::try_from(config_mask.count_ones()).ok()?;
    reader.take(config_values * CONFIG_VALUE_BYTES)?;
    let mut lengths = Vec::with_capacity(instruction_count);
    for _ in 0..instruction_count {
        let (program, accounts) = (reader.byte()?, reader.byte()?);
        let data = u16::from_le_bytes(reader.array()?);
        lengths.push((program, usize::from(accounts), usize::from(data)));
    }
    let mut instructions = Vec::new();
    for (program, accounts, data) in lengths {
        let accounts = reader.take(accounts)?;
        let data = reader.take(data)?;
        if wanted.contains(keys.get(usize::from(program))?) {
            instructions.push(CompiledInstruction {
                program_id_index: program,
                accounts: accounts.to_vec(),
                data: data.to_vec(),
            });
        }
    }
    let mut signatures = Vec::new();
    for _ in 0..header.num_required_signatures {
        signatures.push(Signature::from(reader.array::<64>()?));
    }
    Some(outlined(signatures, header, keys, blockhash, instructions))
}

/// As a legacy transaction, whatever its version was: a list shows no version.
fn outlined(
    signatures: Vec<Signature>,
    header: MessageHeader,
    account_keys: Vec<Pubkey>,
    blockhash: [u8; 32],
    instructions: Vec<CompiledInstruction>,
) -> VersionedTransaction {
    VersionedTransaction {
        signatures,
        message: VersionedMessage::Legacy(Message {
            header,
            account_keys,
            recent_blockhash: Hash::new_from_array(blockhash),
            instructions,
        }),
    }
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

    fn header(&mut self) -> Option<MessageHeader> {
        let [required, readonly_signed, readonly_unsigned] = self.array()?;
        Some(MessageHeader {
            num_required_signatures: required,
            num_readonly_signed_accounts: readonly_signed,
            num_readonly_unsigned_accounts: readonly_unsigned,
        })
    }

    fn addresses(&mut self, count: usize) -> Option<Vec<Pubkey>> {
        let keys = self.take(count.checked_mul(32)?)?.as_chunks().0;
        Some(
            keys.iter()
                .map(|key| Pubkey::new_from_array(*key))
                .collect(),
        )
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
    use solana_sdk::message::{v0, v1};

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
        let bytes = wincode::serialize(&transaction).unwrap();
        (transaction, bytes)
    }

    /// A message of each version; of version 1 without and with values of its configuration.
    fn messages() -> Vec<VersionedMessage> {
        let payer = Pubkey::new_from_array([1; 32]);
        let hash = Hash::new_from_array([4; 32]);
        let legacy = Message::new_with_blockhash(&instructions(), Some(&payer), &hash);
        let version_0 = v0::Message::try_compile(&payer, &instructions(), &[], hash).unwrap();
        let bare = v1::TransactionConfig::empty();
        let full = bare
            .with_priority_fee(u64::MAX)
            .with_compute_unit_limit(7_308)
            .with_loaded_accounts_data_size_limit(65_536)
            .with_heap_size(65_536);
        let mut messages = vec![
            VersionedMessage::Legacy(legacy),
            VersionedMessage::V0(version_0),
        ];
        messages.extend([bare, full].map(|config| {
            let message =
                v1::Message::try_compile_with_config(&payer, &instructions(), hash, config);
            VersionedMessage::V1(message.unwrap())
        }));
        messages
    }

    #[test]
    fn an_outline_has_the_addresses_and_the_memos() {
        let hash = Hash::new_from_array([4; 32]);
        for message in messages() {
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
        let mut messages = messages();
        // The lookup tables of version 0 come last and are not read.
        messages.remove(1);
        for message in messages {
            let (_, bytes) = signed_bytes(message);
            for end in 0..bytes.len() {
                assert_eq!(outline(&bytes[..end], &[MEMO]), None, "{end} bytes");
            }
        }
    }
}
