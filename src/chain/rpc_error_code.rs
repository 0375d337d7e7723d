//! Explains the error codes of a Solana node.

/// The meaning of a code where JSON-RPC or the node's software defines one.
pub(super) fn meaning(code: i64) -> Option<&'static str> {
    Some(match code {
        -32_001 => "the block is no longer kept",
        -32_002 => "the simulation failed",
        -32_003 => "a signature is not valid",
        -32_004 => "the block is not available",
        -32_005 => "the node is behind",
        -32_006 => "a precompiled program refused it",
        -32_007 => "the slot has no block",
        -32_008 => "there is no snapshot",
        -32_009 => "the slot has no block, or it is missing in long-term storage",
        -32_010 => "the key is not indexed",
        -32_011 => "the node keeps no transaction history",
        -32_012 => "the accounts could not be scanned",
        -32_013 => "a signature has the wrong length",
        -32_014 => "the block's status is not available yet",
        -32_015 => "a transaction has a newer version than was requested",
        -32_016 => "the node has not reached the slot that was requested",
        -32_019 => "the long-term storage does not answer",
        -32_600 => "the request is not valid",
        -32_601 => "the method is not known",
        -32_602 => "the parameters are refused",
        -32_603 => "the node failed",
        -32_700 => "the request could not be parsed",
        _ => return None,
    })
}

/// `error -32004 (the block is not available)`.
pub(super) fn describe(code: i64) -> String {
    match meaning(code) {
        Some(meaning) => format!("error {code} ({meaning})"),
        None => format!("error {code}"),
    }
}
