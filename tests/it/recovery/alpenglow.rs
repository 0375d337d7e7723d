//! The endpoints that play Alpenglow: what is confirmed is final there, as on mainnet, and one of them refuses `confirmed`.

use serde_json::{Value, json};
use solana_client::nonblocking::rpc_client::RpcClient;
use solana_client::rpc_request::RpcRequest;
use solana_commitment_config::CommitmentConfig;
use solana_sdk::pubkey::Pubkey;

use crate::support::consensus::Consensus;
use crate::support::eventually;
use crate::support::world::world;

/// Finality under Tower is 31 slots behind.
const SLOTS_BEHIND_MAX: u64 = 5;

async fn ask(rpc: &RpcClient, method: &'static str, parameters: Value) -> Result<Value, String> {
    rpc.send(RpcRequest::Custom { method }, parameters)
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_is_final() {
    Consensus::AlpenglowWithoutConfirmed
        .run(async {
            let finalized = json!({ "commitment": "finalized" });
            let rpc = RpcClient::new_with_commitment(
                world().rpc_url().to_owned(),
                CommitmentConfig::finalized(),
            );
            let certificate = ask(&rpc, "getAgGenesisCert", json!([])).await.unwrap();
            assert!(certificate["block"]["slot"].is_u64());

            let wallet = Pubkey::new_unique();
            let signature = rpc.request_airdrop(&wallet, 1_000_000_000).await.unwrap();
            let slot = eventually("it is final", async || {
                let statuses = rpc.get_signature_statuses(&[signature]).await.unwrap();
                let status = statuses.value[0].clone()?;
                let is_final = status.satisfies_commitment(CommitmentConfig::finalized());
                is_final.then_some(status.slot)
            })
            .await;
            let processed = CommitmentConfig::processed();
            let newest = rpc.get_slot_with_commitment(processed).await.unwrap();
            let final_slot = rpc.get_slot().await.unwrap();
            assert!(
                final_slot + SLOTS_BEHIND_MAX >= newest,
                "{final_slot}, {newest}"
            );

            // The history at `finalized` holds it, and so does its block.
            let mut full = finalized.clone();
            full["maxSupportedTransactionVersion"] = json!(1);
            let shown = json!([signature.to_string(), full]);
            let shown = ask(&rpc, "getTransaction", shown).await.unwrap();
            assert_eq!(shown["slot"], slot);
            let listed = json!([wallet.to_string(), finalized]);
            let listed = ask(&rpc, "getSignaturesForAddress", listed).await.unwrap();
            assert_eq!(listed[0]["signature"], signature.to_string());
            assert_eq!(listed[0]["confirmationStatus"], "finalized");
            full["transactionDetails"] = json!("signatures");
            let block = ask(&rpc, "getBlock", json!([slot, full])).await.unwrap();
            let signatures = block["signatures"].as_array().unwrap();
            assert!(signatures.contains(&json!(signature.to_string())));
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_is_accepted_by_one_endpoint_and_refused_by_the_other() {
    for (consensus, is_accepted) in [
        (Consensus::Tower, true),
        (Consensus::Alpenglow, true),
        (Consensus::AlpenglowWithoutConfirmed, false),
    ] {
        consensus
            .run(async {
                let rpc = RpcClient::new(world().rpc_url().to_owned());
                let confirmed = json!([{ "commitment": "confirmed" }]);
                let answer = ask(&rpc, "getSlot", confirmed).await;
                assert_eq!(answer.is_ok(), is_accepted, "{consensus:?}: {answer:?}");
                if let Err(refusal) = answer {
                    assert!(refusal.contains("-32602"), "{refusal}");
                }
            })
            .await;
    }
}
