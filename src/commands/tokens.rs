//! Tokens for the program's own clients: made anew before the old one ends.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A token is good for this long …
const LIFETIME: Duration = Duration::from_secs(3600);
/// … and replaced this long before it ends: a request under way must not outlive it.
const RENEWAL: Duration = Duration::from_secs(600);

type Issue = dyn Fn(Duration) -> String + Send + Sync;

/// Hands out a valid token of one subject and role.
pub struct TokenSource {
    issue: Box<Issue>,
    current: Mutex<Option<(String, Instant)>>,
}

impl TokenSource {
    /// `issue` makes a token that is valid for the given time.
    pub fn new(issue: impl Fn(Duration) -> String + Send + Sync + 'static) -> TokenSource {
        TokenSource {
            issue: Box::new(issue),
            current: Mutex::new(None),
        }
    }

    #[cfg(test)]
    pub fn fixed(token: &'static str) -> TokenSource {
        TokenSource::new(move |_| token.to_owned())
    }

    /// A token that is valid for minutes yet.
    pub fn token(&self) -> String {
        // The lock only guards a copy: a panic elsewhere cannot leave it half written.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, made_at)) = &*current
            && made_at.elapsed() < LIFETIME - RENEWAL
        {
            return token.clone();
        }
        let token = (self.issue)(LIFETIME);
        *current = Some((token.clone(), Instant::now()));
        token
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_fresh_token_is_used_again() {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let tokens = TokenSource::new(|_| MADE.fetch_add(1, Ordering::Relaxed).to_string());

        assert_eq!(
            (tokens.token(), tokens.token()),
            ("0".to_owned(), "0".to_owned())
        );
    }
}
