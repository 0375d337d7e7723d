//! The name of a call's method, for errors, logs and metrics.

use solana_client::rpc_request::RpcRequest;

use crate::telemetry::names;

/// One of [`names::RPC_METHODS`]: `other` for a method that this service does not call.
pub(in crate::chain) fn method_name(request: RpcRequest) -> &'static str {
    let method = request.to_string();
    names::RPC_METHODS
        .iter()
        .find(|known| **known == method)
        .copied()
        .unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_are_not_ours_share_one_name() {
        assert_eq!(method_name(RpcRequest::SendTransaction), "sendTransaction");
        assert_eq!(method_name(RpcRequest::GetInflationRate), "other");
    }
}
