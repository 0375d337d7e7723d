//! A rate of calls: how many a second are allowed.

use std::time::Duration;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// Calls per second, as the time between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRate {
    every: Duration,
}

impl CallRate {
    /// The range that settings allow, calls per second. The lower bound is a call every ten seconds: below it no proof would end in
    /// an hour. The upper one is beyond every plan that is sold by calls.
    pub const PER_SECOND_MIN: Decimal = Decimal::from_parts(1, 0, 0, false, 1);
    pub const PER_SECOND_MAX: Decimal = Decimal::ONE_THOUSAND;

    /// Values outside the range count as its nearest bound.
    pub fn per_second(calls: Decimal) -> CallRate {
        let calls = calls.clamp(CallRate::PER_SECOND_MIN, CallRate::PER_SECOND_MAX);
        let micros = Decimal::from(1_000_000) / calls;
        CallRate {
            every: Duration::from_micros(micros.to_u64().unwrap_or(1_000_000)),
        }
    }

    /// From the start of one call to the start of the next, at least.
    pub fn every(self) -> Duration {
        self.every
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_time_between_two_calls() {
        for (calls, millis) in [("10", 100), ("0.1", 10_000), ("2.5", 400), ("1000", 1)] {
            let rate = CallRate::per_second(calls.parse().unwrap());
            assert_eq!(rate.every(), Duration::from_millis(millis), "{calls}");
        }
        let none = CallRate::per_second(Decimal::ZERO);
        assert_eq!(none.every(), Duration::from_secs(10));
    }
}
