//! The programs that our transactions call.

use solana_sdk::pubkey::Pubkey;

const MEMO: [Pubkey; 3] = [
    spl_memo_interface::v1::ID,
    spl_memo_interface::v3::ID,
    spl_memo_interface::v4::ID,
];
const OTHERS: [Pubkey; 4] = [
    spl_token_interface::ID,
    spl_associated_token_account_interface::program::ID,
    solana_compute_budget_interface::ID,
    solana_system_interface::program::ID,
];

pub(super) fn is_memo_program(program: &Pubkey) -> bool {
    MEMO.contains(program)
}

/// Whether nothing that it calls mints: its own instructions show all that it mints.
pub(super) fn calls_no_mint(program: &Pubkey) -> bool {
    is_memo_program(program) || OTHERS.contains(program)
}
