//! Parameters of lists: an invalid one is refused by its name.

use super::problem::Problem;
use super::problem_kind::ProblemKind;

/// The number of items in one page, from the text of the parameter `limit`.
pub fn limit(given: Option<&str>, default: u16, max: u16) -> Result<u16, Problem> {
    let Some(given) = given else {
        return Ok(default);
    };
    given
        .parse()
        .ok()
        .filter(|limit| (1..=max).contains(limit))
        .ok_or_else(|| {
            invalid(
                "limit",
                format!("{given:?} is out of range; give a whole number from 1 to {max}"),
            )
        })
}

/// The problem of an invalid parameter; the sentence continues after its name.
pub fn invalid(parameter: &'static str, sentence: impl std::fmt::Display) -> Problem {
    Problem::new(
        ProblemKind::MalformedRequest,
        format!("{parameter} {sentence}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_whole_number_in_its_range() {
        assert_eq!(limit(None, 100, 1000).unwrap(), 100);
        assert_eq!(limit(Some("1"), 100, 1000).unwrap(), 1);
        assert_eq!(limit(Some("1000"), 100, 1000).unwrap(), 1000);
        for given in ["0", "1001", "-1", "1.5", "", "ten", "99999999999999999999"] {
            let problem = limit(Some(given), 100, 1000).unwrap_err();
            assert_eq!(problem.status(), 400);
            assert_eq!(
                problem.sentence(),
                format!("limit {given:?} is out of range; give a whole number from 1 to 1000")
            );
        }
    }
}
