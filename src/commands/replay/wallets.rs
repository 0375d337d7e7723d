//! Derives a wallet for each meter from a seed that stays with the data directory. The seed's holder can sign for it.

use sha2::{Digest, Sha256};
use solana_sdk::signature::Keypair;
use solana_sdk::signer::Signer;

/// The meter's wallet address: the ed25519 key of SHA-256(seed ‖ serial).
pub fn wallet_of(seed: &[u8; 32], serial: &str) -> String {
    let secret = Sha256::new()
        .chain_update(seed)
        .chain_update(serial)
        .finalize();
    Keypair::new_from_array(secret.into()).pubkey().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_keeps_its_wallet_and_shares_it_with_no_other() {
        let seed = [7; 32];
        let wallet = wallet_of(&seed, "ausgrid-12-2011-07-01");

        assert_eq!(wallet, wallet_of(&seed, "ausgrid-12-2011-07-01"));
        assert_ne!(wallet, wallet_of(&seed, "ausgrid-12-2011-07-02"));
        assert_ne!(wallet, wallet_of(&[8; 32], "ausgrid-12-2011-07-01"));
    }
}
