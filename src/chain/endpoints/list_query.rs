//! Requests a list in as few calls as an endpoint allows: a list that it refuses is halved, and the size that works is remembered.

use std::time::Instant;

use super::endpoint::Endpoint;
use super::limit_recognition::ProviderLimit;
use crate::chain::error::ChainError;
use crate::chain::error_reason::{NoAnswer, UnusableAnswer};

/// The JSON-RPC error for parameters that are refused.
const INVALID_PARAMETERS: i64 = -32_602;

/// A method that takes a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListMethod {
    MultipleAccounts,
    SignatureStatuses,
}

impl ListMethod {
    /// Items that a node takes at most.
    pub const fn items_max(self) -> usize {
        match self {
            ListMethod::MultipleAccounts => 100,
            ListMethod::SignatureStatuses => 256,
        }
    }

    fn name(self) -> &'static str {
        match self {
            ListMethod::MultipleAccounts => "getMultipleAccounts",
            ListMethod::SignatureStatuses => "getSignatureStatuses",
        }
    }
}

/// A list that is requested part by part. Request [`Self::next_part`] until it is `None`, and report each answer.
pub struct ListQuery<'a, T> {
    endpoint: &'a Endpoint,
    method: ListMethod,
    rest: &'a [T],
    part_max: usize,
    /// Why a longer part was refused in this query.
    refusal: Option<String>,
}

impl<'a, T> ListQuery<'a, T> {
    pub fn new(endpoint: &'a Endpoint, method: ListMethod, items: &'a [T]) -> ListQuery<'a, T> {
        let learnt = endpoint
            .limits()
            .items_max(method.name(), Instant::now())
            .unwrap_or(usize::MAX);
        ListQuery {
            endpoint,
            method,
            rest: items,
            part_max: learnt.min(method.items_max()).max(1),
            refusal: None,
        }
    }

    /// The part to request next.
    pub fn next_part(&self) -> Option<&'a [T]> {
        let rest = self.rest;
        (!rest.is_empty()).then(|| &rest[..self.part_max.min(rest.len())])
    }

    /// The last part was answered.
    pub fn answered(&mut self) {
        let answered = self.part_max.min(self.rest.len());
        self.rest = &self.rest[answered..];
        if let Some(refusal) = self.refusal.take() {
            let limits = self.endpoint.limits();
            limits.learn_size(self.method.name(), self.part_max, &refusal, Instant::now());
        }
    }

    /// The last part was refused: the next one is half as long, or this is the error of the whole query.
    pub fn refused(&mut self, error: ChainError) -> Result<(), ChainError> {
        let requested = self.part_max.min(self.rest.len());
        if requested <= 1 || !may_be_too_long(&error) {
            return Err(error);
        }
        self.part_max = requested / 2;
        if is_about_length(&error) {
            self.refusal = Some(error.to_string());
        }
        Ok(())
    }
}

/// Whether a shorter list may be answered. Providers refuse long lists in many forms; what is known to have another reason is left
/// out.
fn may_be_too_long(error: &ChainError) -> bool {
    match error {
        ChainError::Limited { limit, .. } => *limit == ProviderLimit::Size,
        ChainError::Unreachable { reason, .. } => matches!(reason, NoAnswer::HttpStatus(400)),
        ChainError::Unusable { reason, .. } => matches!(reason, UnusableAnswer::WrongCount { .. }),
        ChainError::ErrorResponse { .. } => true,
        ChainError::RateLimited { .. }
        | ChainError::Behind { .. }
        | ChainError::NoneUsable { .. }
        | ChainError::Refused(_)
        | ChainError::MintUnknown { .. }
        | ChainError::ChargesUnknown => false,
    }
}

/// Whether the refusal is about the length, so that the length which works is worth remembering. Any other error may have passed by
/// itself.
fn is_about_length(error: &ChainError) -> bool {
    !matches!(error, ChainError::ErrorResponse { code, .. } if *code != INVALID_PARAMETERS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::chain::endpoints::Endpoints;

    fn endpoints() -> Endpoints {
        Endpoints::new(&["http://127.0.0.1:9".to_owned()], Duration::from_secs(1))
    }

    fn too_long() -> ChainError {
        ChainError::Limited {
            endpoint: "rpc-1".to_owned(),
            method: "getMultipleAccounts",
            limit: ProviderLimit::Size,
            answer: "HTTP 413".to_owned(),
        }
    }

    /// Queries an endpoint that takes lists of this length. Returns what was answered, and the number of refused calls.
    fn ask(endpoint: &Endpoint, items: &[usize], takes: usize) -> (Vec<usize>, usize) {
        let mut query = ListQuery::new(endpoint, ListMethod::MultipleAccounts, items);
        let (mut answered, mut refused) = (Vec::new(), 0);
        while let Some(part) = query.next_part() {
            if part.len() > takes {
                refused += 1;
                query.refused(too_long()).unwrap();
            } else {
                query.answered();
                answered.extend_from_slice(part);
            }
        }
        (answered, refused)
    }

    proptest! {
        #[test]
        fn every_item_is_asked_for_once_in_order_and_the_size_is_learnt(count in 0_usize..400, takes in 1_usize..120) {
            let endpoints = endpoints();
            let items: Vec<usize> = (0..count).collect();
            let (answered, refused) = ask(endpoints.preferred(), &items, takes);
            prop_assert_eq!(&answered, &items);
            prop_assert!(refused <= 7);
            let (answered, refused) = ask(endpoints.preferred(), &items, takes);
            prop_assert_eq!(&answered, &items);
            prop_assert_eq!(refused, 0);
        }
    }

    #[test]
    fn what_shorter_lists_do_not_cure_is_the_error_of_the_query() {
        let endpoints = endpoints();
        let endpoint = endpoints.preferred();
        let mut query = ListQuery::new(endpoint, ListMethod::MultipleAccounts, &[1, 2]);
        let limited = ChainError::RateLimited {
            endpoint: "rpc-1".to_owned(),
            wait: Duration::from_secs(1),
        };
        assert!(query.refused(limited).is_err());
        assert!(query.refused(too_long()).is_ok());
        assert_eq!(query.next_part(), Some(&[1][..]));
        assert!(query.refused(too_long()).is_err());
    }
}
