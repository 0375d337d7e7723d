//! Plays a node of a cluster under Alpenglow, in front of a chain that runs Tower.
//!
//! Under Alpenglow a block is final some 150 ms after it was produced: `confirmed` and `finalized` name the same slot. So this
//! asks the chain for `confirmed` wherever `finalized` is asked for, and reports as final what the chain reports as confirmed.
//! That is true as long as the chain is not killed: the local chain forks in no other way.

use serde_json::{Value, json};

use super::call_action::ConfirmedCommitment;

/// JSON-RPC's code for parameters that cannot be parsed.
const INVALID_PARAMS: i64 = -32602;

/// The part that a node under Alpenglow plays in a call.
#[derive(Debug, PartialEq)]
pub(super) enum Played {
    /// Without the chain: this is the whole answer.
    Answer(Value),
    /// The chain answers this call.
    Forward(Value),
}

/// Translates a call.
pub(super) fn request(call: &Value, confirmed: ConfirmedCommitment) -> Played {
    let method = call["method"].as_str().unwrap_or_default();
    if method == "getAgGenesisCert" {
        let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": certificate() });
        return Played::Answer(answer);
    }
    let member = commitment_member(method);
    let mut call = call.clone();
    let Some(position) = configuration_position(method, &call["params"]) else {
        return Played::Forward(call);
    };
    let given = &call["params"][position][member];
    if given == "confirmed" && confirmed == ConfirmedCommitment::Refused {
        // As serde words it for an enumeration without that variant, in the sentence of the nodes' JSON-RPC server.
        let error = json!({
            "code": INVALID_PARAMS,
            "message": "Invalid params: unknown variant `confirmed`, expected `processed` or `finalized`.",
        });
        return Played::Answer(json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }));
    }
    if given != "processed" {
        set_commitment(&mut call["params"], position, member);
    }
    Played::Forward(call)
}

/// Translates the chain's answer.
pub(super) fn answer(method: &str, mut answer: Value) -> Value {
    match method {
        "getSignatureStatuses" => {
            if let Some(statuses) = answer["result"]["value"].as_array_mut() {
                for status in statuses {
                    if status["confirmationStatus"] == "confirmed" {
                        status["confirmationStatus"] = json!("finalized");
                        status["confirmations"] = Value::Null;
                    }
                }
            }
        }
        "getSignaturesForAddress" => {
            if let Some(listed) = answer["result"].as_array_mut() {
                // The local chain lists the open block's, whatever commitment is asked for.
                listed.retain(|entry| entry["confirmationStatus"] != "processed");
                for entry in listed {
                    entry["confirmationStatus"] = json!("finalized");
                }
            }
        }
        _ => {}
    }
    answer
}

/// The members and lengths of a certificate; the local chain has been under Alpenglow since its first block.
fn certificate() -> Value {
    json!({
        "block": { "slot": 1, "blockId": vec![1; 32] },
        "signature": { "signature": vec![2; 192], "bitmap": [1, 0, 0, 0] },
    })
}

/// The position of a method's configuration, with its commitment, among the parameters. `None` for methods without one.
fn configuration_position(method: &str, parameters: &Value) -> Option<usize> {
    match method {
        "getBlockHeight"
        | "getEpochInfo"
        | "getLatestBlockhash"
        | "getSlot"
        | "getSlotLeader"
        | "getSupply"
        | "getTransactionCount" => Some(0),
        "getAccountInfo"
        | "getBalance"
        | "getBlock"
        | "getFeeForMessage"
        | "getMinimumBalanceForRentExemption"
        | "getMultipleAccounts"
        | "getProgramAccounts"
        | "getSignaturesForAddress"
        | "getTokenAccountBalance"
        | "getTokenLargestAccounts"
        | "getTokenSupply"
        | "getTransaction"
        | "isBlockhashValid"
        | "sendTransaction"
        | "simulateTransaction" => Some(1),
        // The last slot may be left out.
        "getBlocks" if parameters[1].is_object() => Some(1),
        "getBlocks" | "getBlocksWithLimit" | "getTokenAccountsByOwner" => Some(2),
        _ => None,
    }
}

fn commitment_member(method: &str) -> &'static str {
    match method {
        "sendTransaction" => "preflightCommitment",
        _ => "commitment",
    }
}

/// Without a configuration, a node would take `finalized`.
fn set_commitment(parameters: &mut Value, position: usize, member: &str) {
    if !parameters.is_array() {
        *parameters = json!([]);
    }
    let Some(list) = parameters.as_array_mut() else {
        return;
    };
    while list.len() <= position {
        list.push(Value::Null);
    }
    let configuration = &mut list[position];
    match configuration {
        Value::Object(_) => {}
        // An old form: the encoding alone.
        Value::String(encoding) => *configuration = json!({ "encoding": encoding }),
        _ => *configuration = json!({}),
    }
    configuration[member] = json!("confirmed");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, parameters: Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": parameters })
    }

    fn forwarded(method: &str, parameters: Value) -> Value {
        match request(&call(method, parameters), ConfirmedCommitment::Accepted) {
            Played::Forward(call) => call["params"].clone(),
            Played::Answer(answer) => panic!("{answer}"),
        }
    }

    #[test]
    fn finalized_is_asked_of_the_chain_as_confirmed_and_so_is_nothing() {
        let confirmed = json!({ "commitment": "confirmed" });
        for given in [
            json!({ "commitment": "finalized" }),
            json!({}),
            confirmed.clone(),
        ] {
            assert_eq!(forwarded("getSlot", json!([given])), json!([confirmed]));
        }
        assert_eq!(forwarded("getSlot", Value::Null), json!([confirmed]));
        let processed = json!([{ "commitment": "processed" }]);
        assert_eq!(forwarded("getSlot", processed.clone()), processed);
        assert_eq!(
            forwarded("getTransaction", json!(["s", "base64"])),
            json!(["s", { "encoding": "base64", "commitment": "confirmed" }])
        );
        assert_eq!(
            forwarded("getBlocks", json!([5, { "commitment": "finalized" }])),
            json!([5, confirmed])
        );
        assert_eq!(
            forwarded("getBlocks", json!([5])),
            json!([5, null, confirmed])
        );
        assert_eq!(
            forwarded("sendTransaction", json!(["t", { "encoding": "base64" }])),
            json!(["t", { "encoding": "base64", "preflightCommitment": "confirmed" }])
        );
        assert_eq!(forwarded("getVersion", Value::Null), Value::Null);
    }

    #[test]
    fn the_second_form_refuses_confirmed_and_only_that() {
        let ask = |parameters| {
            let call = call("getBlockHeight", parameters);
            request(&call, ConfirmedCommitment::Refused)
        };
        let Played::Answer(refusal) = ask(json!([{ "commitment": "confirmed" }])) else {
            panic!("it is not refused");
        };
        assert_eq!(refusal["id"], 7);
        assert_eq!(refusal["error"]["code"], -32602);
        for accepted in ["processed", "finalized"] {
            let played = ask(json!([{ "commitment": accepted }]));
            assert!(matches!(played, Played::Forward(_)), "{accepted}");
        }
    }

    #[test]
    fn what_the_chain_has_confirmed_is_reported_as_final() {
        let statuses = json!({ "result": { "value": [
            null,
            { "confirmationStatus": "confirmed", "confirmations": 3 },
            { "confirmationStatus": "processed", "confirmations": 0 },
        ] } });
        assert_eq!(
            answer("getSignatureStatuses", statuses)["result"]["value"],
            json!([
                null,
                { "confirmationStatus": "finalized", "confirmations": null },
                { "confirmationStatus": "processed", "confirmations": 0 },
            ])
        );
        let listed = json!({ "result": [
            { "signature": "c", "confirmationStatus": "processed" },
            { "signature": "b", "confirmationStatus": "confirmed" },
            { "signature": "a", "confirmationStatus": "finalized" },
        ] });
        assert_eq!(
            answer("getSignaturesForAddress", listed)["result"],
            json!([
                { "signature": "b", "confirmationStatus": "finalized" },
                { "signature": "a", "confirmationStatus": "finalized" },
            ])
        );
    }

    #[test]
    fn the_certificate_is_answered_without_the_chain() {
        let played = request(
            &call("getAgGenesisCert", Value::Null),
            ConfirmedCommitment::Refused,
        );
        let Played::Answer(answer) = played else {
            panic!("it is forwarded");
        };
        let certificate = &answer["result"];
        assert!(certificate["block"]["slot"].is_u64());
        let signature = certificate["signature"]["signature"].as_array();
        assert_eq!(signature.unwrap().len(), 192);
    }
}
