//! A JSON-RPC proxy between service and chain that injects faults, for tests (feature `failpoints`).
//!
//! It takes the place of the network and of a provider's node in production, so that tests exercise how the service handles
//! their faults. Tests in this process decide each call by a closure ([`FaultProxy::on_call`]); the program
//! `gridtokenx-faultproxy` takes rules as a document over HTTP. Both result in a [`CallAction`].
//!
//! | file | what it does |
//! |---|---|
//! | `proxy` | receives calls, carries out the action for each, counts them |
//! | `upstream` | the node behind it |
//! | `call_action` | the actions that it can take on a call |
//! | `rules` | the document of rules: which method meets which fault, for how long |
//! | `alpenglow` | a node of a cluster under Alpenglow, played in front of one under Tower |
//! | `faulty_answers` | answers of a node that lags, has pruned its history, or reports wrong statuses |

mod alpenglow;
mod call_action;
mod faulty_answers;
mod proxy;
mod rules;
mod upstream;

pub use call_action::{CallAction, ConfirmedCommitment};
pub use proxy::FaultProxy;
pub use rules::{RuleBook, RuleError};
