//! A JSON-RPC proxy between service and chain that can be told to misbehave, for tests (feature `failpoints`).
//!
//! It stands where the network and somebody else's node stand in production, so that what the service does about them is
//! tried on the real thing. Tests in this process say by a closure what happens to each call ([`FaultProxy::obey`]); the
//! program `gridtokenx-faultproxy` takes rules as a document over HTTP. Both end in the same [`Verdict`].
//!
//! | file | what it does |
//! |---|---|
//! | `proxy` | takes calls, asks for the verdict, carries it out, counts |
//! | `upstream` | the node behind it |
//! | `verdict` | what may happen to a call |
//! | `rules` | the document: which method meets which fault, for how long |
//! | `memory` | answers of a node that lags, forgets or lies |

mod memory;
mod proxy;
mod rules;
mod upstream;
mod verdict;

pub use proxy::FaultProxy;
pub use rules::{RuleBook, RuleError};
pub use verdict::Verdict;
