//! The position from which a client reads the feed.

use crate::api::problem::Problem;
use crate::api::problem_kind::ProblemKind;
use crate::feed::Seq;

/// The number that a client gives as `after`.
pub(super) fn event_cursor(after: i64) -> Result<Seq, Problem> {
    Seq::new(after).ok_or_else(|| {
        Problem::new(
            ProblemKind::MalformedRequest,
            "`after` is the number of an event: 0 or more",
        )
    })
}
