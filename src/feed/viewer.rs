//! Who listens, and what that lets them see.

use super::event::FeedEvent;
use crate::meters::{Caller, Role};
use crate::outbox::EventType;

/// A listener's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Everything, also what belongs to nobody.
    Admin,
    /// What belongs to this subject.
    User(String),
    /// Somebody without a token, where none is asked for: sums over batches, nothing that belongs to anyone.
    Anonymous,
}

/// The one event type that tells an anonymous listener something and nothing about anyone.
pub(super) const PUBLIC_EVENT: EventType = EventType::BatchMintingCompleted;

impl From<&Caller> for Viewer {
    fn from(caller: &Caller) -> Viewer {
        match caller.role {
            Role::Admin => Viewer::Admin,
            Role::User => Viewer::User(caller.subject.clone()),
        }
    }
}

impl Viewer {
    pub fn may_see(&self, event: &FeedEvent) -> bool {
        match self {
            Viewer::Admin => true,
            Viewer::User(subject) => event.owner.as_ref() == Some(subject),
            Viewer::Anonymous => is_public(event),
        }
    }
}

pub(super) fn is_public(event: &FeedEvent) -> bool {
    event.owner.is_none() && event.event_type == PUBLIC_EVENT.as_str()
}

#[cfg(test)]
mod tests {
    use super::super::event::event;
    use super::*;

    #[test]
    fn users_see_their_own_and_nothing_that_belongs_to_nobody() {
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
}
