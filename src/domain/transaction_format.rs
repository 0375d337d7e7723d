//! The formats in which mint transactions are built, and the setting that chooses between them.

use std::fmt;
use std::str::FromStr;

/// Newest transaction version that this program reads. A node answers a call that allows less than a transaction's version with
/// an error (-32015), for a block perhaps as a whole: every call that reads transactions or blocks passes this number. An error
/// about a newer version says nothing about what the transaction or block holds.
pub const NEWEST_TRANSACTION_VERSION: u8 = 1;

/// A format of mint transactions. Both pay the same readings for the same fee per signature; v1 holds more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionFormat {
    /// The format that every cluster takes: 1,232 bytes; limits and price of compute units are separate instructions.
    Legacy,
    /// SIMD-0385: 4,096 bytes, 64 addresses, 64 instructions; limits and the whole priority fee are in the header.
    V1,
}

impl TransactionFormat {
    pub const ALL: [TransactionFormat; 2] = [TransactionFormat::Legacy, TransactionFormat::V1];

    pub const fn as_str(self) -> &'static str {
        match self {
            TransactionFormat::Legacy => "legacy",
            TransactionFormat::V1 => "v1",
        }
    }

    /// The largest signed transaction, signatures included.
    pub const fn bytes_max(self) -> usize {
        match self {
            // The minimum MTU of IPv6 without its headers (`PACKET_DATA_SIZE`).
            TransactionFormat::Legacy => 1_232,
            // `MAX_TRANSACTION_SIZE` of SIMD-0385.
            TransactionFormat::V1 => 4_096,
        }
    }
}

impl fmt::Display for TransactionFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Chooses the format of mint transactions (`BLOCKCHAIN_TRANSACTION_FORMAT`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TransactionFormatPolicy {
    /// v1 where the endpoint takes it, which a probe determines; legacy elsewhere.
    #[default]
    Auto,
    /// This one, whatever the endpoint takes.
    Always(TransactionFormat),
}

/// Parses the setting: `auto`, `v1`, `legacy`.
impl FromStr for TransactionFormatPolicy {
    type Err = ();

    fn from_str(text: &str) -> Result<TransactionFormatPolicy, ()> {
        if text == "auto" {
            return Ok(TransactionFormatPolicy::Auto);
        }
        TransactionFormat::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .map(TransactionFormatPolicy::Always)
            .ok_or(())
    }
}

impl fmt::Display for TransactionFormatPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransactionFormatPolicy::Auto => formatter.write_str("auto"),
            TransactionFormatPolicy::Always(format) => format.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_parses_exactly_as_it_is_written() {
        for text in ["auto", "v1", "legacy"] {
            let policy: TransactionFormatPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        for text in ["", "Auto", "v0", "1", "v1 "] {
            assert_eq!(text.parse::<TransactionFormatPolicy>(), Err(()), "{text}");
        }
    }
}
