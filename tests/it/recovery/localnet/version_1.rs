//! Transactions of version 1 are stored, restored and listed like any other.

use serde_json::{Value, json};
use solana_client::rpc_request::RpcRequest;

use super::*;

/// With the memo they take more bytes than earlier versions allow.
const MINTS: u64 = 60;
const BYTES_MAX_BEFORE: usize = 1_232;

/// What the chain reports of a transaction: itself, its block, its entry in the mint's history, and its status.
async fn reported(client: &RpcClient, money: &Money, signature: &Signature) -> Value {
    let config = json!({
        "encoding": "base64", "commitment": "confirmed", "maxSupportedTransactionVersion": 1,
    });
    let ask = async |request: RpcRequest, params: Value| -> Value {
        client.send(request, params).await.unwrap()
    };
    let signature = signature.to_string();
    let transaction = ask(RpcRequest::GetTransaction, json!([signature, config])).await;
    let mut block_config = config.clone();
    block_config["transactionDetails"] = json!("full");
    let block = ask(
        RpcRequest::GetBlock,
        json!([transaction["slot"], block_config]),
    )
    .await;
    let history = json!([money.mint.to_string(), { "commitment": "confirmed" }]);
    let listed = ask(RpcRequest::GetSignaturesForAddress, history).await;
    let listed = listed.as_array().unwrap();
    let entry = listed
        .iter()
        .find(|it| it["signature"] == signature.as_str());
    let mut entry = entry.expect("the mint's history holds it").clone();
    // These change while the chain goes on; the time is derived from the present one.
    entry["confirmationStatus"].take();
    entry["blockTime"].take();
    json!({ "transaction": transaction, "block": block, "listed": entry })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_version_1_survives_a_stop_and_a_kill() {
    let dir = TempDir::new("version-1");
    let fast = [("LOCALNET_SLOT_MS", "50")];
    let mut chain = Localnet::start_with(dir.path(), "127.0.0.1:0", &fast).await;
    let client = chain.client();
    let money = Money::create(&client).await;
    let blockhash = client.get_latest_blockhash().await.unwrap();
    let mut instructions = vec![memo(MEMO)];
    instructions.extend((1..=MINTS).map(|amount| money.mint_to(amount)));
    let transaction = money.signed_version_1(&instructions, blockhash);
    let wire = wincode::serialize(&transaction).unwrap();
    assert!(wire.len() > BYTES_MAX_BEFORE);
    let signature = send(&client, &transaction).await.unwrap();
    until_final(&client, &signature).await;

    let before = reported(&client, &money, &signature).await;
    assert_eq!(before["transaction"]["version"], 1);
    assert_eq!(before["transaction"]["meta"]["err"], Value::Null);
    let signed_bytes = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &wire);
    assert_eq!(before["transaction"]["transaction"][0], signed_bytes);
    assert_eq!(before["block"]["transactions"][0]["version"], 1);
    let memo = format!("[{}] {MEMO}", MEMO.len());
    assert_eq!(before["listed"]["memo"], memo);
    let supply = money.supply(&client).await;
    assert_eq!(supply, (1..=MINTS).sum::<u64>());

    for restart in ["stop", "kill -9"] {
        match restart {
            "stop" => assert!(chain.stop().await.success()),
            _ => chain.kill9().await,
        }
        chain.restart_with(&fast).await;
        let client = chain.client();
        assert_eq!(
            reported(&client, &money, &signature).await,
            before,
            "after {restart}"
        );
        let statuses = client
            .get_signature_statuses_with_history(&[signature])
            .await
            .unwrap();
        assert_eq!(statuses.value[0].as_ref().unwrap().err, None);
        let again = send(&client, &transaction).await.unwrap_err();
        assert!(again.contains("already been processed"), "{again}");
        assert_eq!(money.supply(&client).await, supply);
    }
}

async fn until_final(client: &RpcClient, signature: &Signature) {
    let finalized = CommitmentConfig::finalized();
    crate::support::wait::eventually("the transaction is final", async || {
        let confirmed = client.confirm_transaction_with_commitment(signature, finalized);
        confirmed.await.unwrap().value.then_some(())
    })
    .await;
}
