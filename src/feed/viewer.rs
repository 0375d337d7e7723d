//! Decides who may see an event.
//!
//! Invariant: an event reaches a viewer only if [`Viewer::may_see`] returns true. The hub calls it for each event that it publishes
//! and for those that it remembers. Pages of the log apply the same rule in SQL ([`Viewer::push_condition`]), because a page
//! must hold up to its limit of events that this viewer may see.

use sqlx::{Postgres, QueryBuilder};

use super::event::FeedEvent;
use crate::meters::{Caller, Role};
use crate::outbox::EventType;

/// A listener's rights.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Viewer {
    /// Sees every event, including those without an owner.
    Admin,
    /// Sees the events of this owner.
    User(String),
    /// A listener without a token, where the configuration allows it: sees totals of batches, nothing that belongs to a user.
    Anonymous,
}

/// The one event type that anonymous listeners see: it identifies no user.
const PUBLIC_EVENT: EventType = EventType::BatchMintingCompleted;

impl From<&Caller> for Viewer {
    fn from(caller: &Caller) -> Viewer {
        match caller.role {
            Role::Admin => Viewer::Admin,
            Role::User => Viewer::User(caller.subject.clone()),
        }
    }
}

impl Viewer {
    /// Whether this viewer may see the event. Every event that is sent to a client has passed here, or [`Self::push_condition`].
    pub fn may_see(&self, event: &FeedEvent) -> bool {
        match self {
            Viewer::Admin => true,
            Viewer::User(subject) => event.owner.as_ref() == Some(subject),
            Viewer::Anonymous => event.owner.is_none() && event.event_type == PUBLIC_EVENT.as_str(),
        }
    }

    /// [`Self::may_see`] as a condition on rows of `events`, for a query that has a WHERE clause already.
    pub(super) fn push_condition(&self, query: &mut QueryBuilder<Postgres>) {
        match self {
            Viewer::Admin => {}
            Viewer::User(subject) => {
                query.push(" AND user_id = ").push_bind(subject.clone());
            }
            Viewer::Anonymous => {
                query
                    .push(" AND user_id IS NULL AND event_type = ")
                    .push_bind(PUBLIC_EVENT.as_str());
            }
        }
    }

    /// All viewers for which [`Self::may_see`] can be true.
    pub(super) fn candidates(event: &FeedEvent) -> impl Iterator<Item = Viewer> {
        let owner = event.owner.clone().map(Viewer::User);
        [Viewer::Admin, Viewer::Anonymous].into_iter().chain(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::event;
    use super::*;

    #[test]
    fn users_see_their_own_events_and_none_without_an_owner() {
        let own = event(1, "TokensMinted", Some("anna"), r#"{"id":"1"}"#);
        let batch = event(2, "BatchMintingCompleted", None, r#"{"id":"2"}"#);
        let notice = event(3, "AdminNotification", None, r#"{"id":"3"}"#);
        let own_batch = event(4, "BatchMintingCompleted", Some("anna"), r#"{"id":"4"}"#);
        let sees = |viewer: &Viewer| {
            [&own, &batch, &notice, &own_batch].map(|event| viewer.may_see(event))
        };
        assert_eq!(sees(&Viewer::Admin), [true, true, true, true]);
        assert_eq!(
            sees(&Viewer::User("anna".to_owned())),
            [true, false, false, true]
        );
        assert_eq!(sees(&Viewer::User("ben".to_owned())), [false; 4]);
        assert_eq!(sees(&Viewer::Anonymous), [false, true, false, false]);
    }

    #[test]
    fn every_viewer_who_may_see_an_event_is_a_candidate() {
        let viewers = [
            Viewer::Admin,
            Viewer::Anonymous,
            Viewer::User("anna".to_owned()),
            Viewer::User("ben".to_owned()),
        ];
        for owner in [Some("anna"), Some("ben"), None] {
            for event_type in EventType::ALL {
                let event = event(1, event_type.as_str(), owner, r#"{"id":"1"}"#);
                for viewer in viewers.iter().filter(|viewer| viewer.may_see(&event)) {
                    assert!(Viewer::candidates(&event).any(|candidate| candidate == *viewer));
                }
            }
        }
    }
}
