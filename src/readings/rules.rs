//! Decides whether a new reading is acceptable: too old, in the future, too much energy; and what it is worth.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;

use super::error::Invalid;
use crate::config::{BlockchainConfig, TokenizationConfig};
use crate::domain::{BaseUnits, Interval, Kwh, TokenRate};

/// How far a meter's clock may run ahead of this host's.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// The operator's limits. They apply to new readings only: a repeated reading is found whatever the limits are now.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadingRules {
    pub(super) rate: TokenRate,
    /// Largest energy of one reading, kWh.
    pub(super) kwh_max: Decimal,
    /// Age limit of an interval's start.
    pub(super) age_max: Duration,
    /// The most that one mint transaction may pay, and so the most that one reading may be worth.
    pub(super) base_units_max: BaseUnits,
}

impl ReadingRules {
    pub(super) fn new(
        tokenization: &TokenizationConfig,
        blockchain: &BlockchainConfig,
    ) -> ReadingRules {
        let rate = TokenRate::new(tokenization.kwh_to_token_ratio, tokenization.decimals);
        ReadingRules {
            rate: rate.unwrap_or_else(|error| {
                unreachable!("the configuration's ranges let only rates through: {error}")
            }),
            kwh_max: tokenization.max_reading_kwh.normalize(),
            age_max: tokenization.reading_max_age,
            base_units_max: BaseUnits::new(blockchain.max_tokens_per_transaction),
        }
    }

    /// The base units that the reading pays, rounded down, or why it is refused.
    pub(super) fn worth(
        &self,
        kwh: Kwh,
        interval: Interval,
        now: DateTime<Utc>,
    ) -> Result<BaseUnits, Invalid> {
        self.check_time(interval, now)?;
        if kwh.as_decimal() > self.kwh_max {
            return Err(Invalid::TooMuchEnergy {
                kwh,
                limit: self.kwh_max,
            });
        }
        let base_units = kwh
            .to_base_units(self.rate)
            .ok_or(Invalid::WorthTooMuch { kwh })?;
        if base_units.is_zero() {
            return Err(Invalid::WorthNothing { kwh });
        }
        if base_units > self.base_units_max {
            return Err(Invalid::AboveTransaction {
                kwh,
                base_units,
                limit: self.base_units_max,
            });
        }
        Ok(base_units)
    }

    /// The age limit applies to the start, because the guarded intervals behind it are pruned: no accepted reading may need them.
    fn check_time(&self, interval: Interval, now: DateTime<Utc>) -> Result<(), Invalid> {
        // The age of an interval that starts in the future is negative, which counts as zero here.
        let age = (now - interval.start()).to_std().unwrap_or_default();
        if age > self.age_max {
            return Err(Invalid::TooOld {
                start: interval.start(),
                limit: self.age_max,
            });
        }
        if interval.end() - now > CLOCK_SKEW {
            return Err(Invalid::InFuture {
                end: interval.end(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: DateTime<Utc> = DateTime::from_timestamp(1_772_366_400, 0).unwrap();

    fn rules(decimals: u8) -> ReadingRules {
        ReadingRules {
            rate: TokenRate::new(Decimal::ONE, decimals).unwrap(),
            kwh_max: Decimal::from(100),
            age_max: Duration::from_secs(7 * 24 * 60 * 60),
            base_units_max: BaseUnits::new(50_000_000_000),
        }
    }

    fn until(end: DateTime<Utc>, length: TimeDelta) -> Interval {
        Interval::new(end - length, end).unwrap()
    }

    fn worth(kwh: &str) -> Result<u64, String> {
        rules(9)
            .worth(
                Kwh::parse(kwh).unwrap(),
                until(NOON, TimeDelta::minutes(15)),
                NOON,
            )
            .map(BaseUnits::get)
            .map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_reading_is_worth_its_energy_rounded_down() {
        assert_eq!(worth("1.25"), Ok(1_250_000_000));
        assert_eq!(worth("0.0000000019"), Ok(1));
        assert_eq!(worth("50"), Ok(50_000_000_000));
    }

    #[test]
    fn refusals_name_their_limit() {
        assert_eq!(
            worth("0.0000000009").unwrap_err(),
            "kwh_amount 0.0000000009 is worth less than one base unit; report a longer interval with more energy"
        );
        assert_eq!(
            worth("100.5").unwrap_err(),
            "kwh_amount 100.5 is above this service's limit of 100 kWh per reading; split the interval or ask the operator"
        );
        assert_eq!(
            worth("50.000000001").unwrap_err(),
            "kwh_amount 50.000000001 is worth 50000000001 base units, above the limit of 50000000000 per transaction; \
             split the interval or ask the operator"
        );
    }

    #[test]
    fn what_the_chain_cannot_hold_is_refused() {
        let rules = ReadingRules {
            kwh_max: Decimal::from(90_000_000_000_u64),
            base_units_max: BaseUnits::MAX,
            ..rules(9)
        };
        let worth = |kwh: &str| {
            rules.worth(
                Kwh::parse(kwh).unwrap(),
                until(NOON, TimeDelta::minutes(15)),
                NOON,
            )
        };
        assert_eq!(worth("18446744073.709551615"), Ok(BaseUnits::MAX));
        assert!(matches!(
            worth("18446744073.709551616"),
            Err(Invalid::WorthTooMuch { .. })
        ));
    }

    #[test]
    fn the_age_limit_holds_for_the_start_and_the_future_for_the_end() {
        let check = |end, length| rules(9).check_time(until(end, length), NOON);
        let quarter = TimeDelta::minutes(15);
        let micro = TimeDelta::microseconds(1);
        let oldest_end = NOON - TimeDelta::days(7) + quarter;
        assert_eq!(check(oldest_end, quarter), Ok(()));
        assert_eq!(
            check(oldest_end - micro, quarter).unwrap_err().to_string(),
            "the interval starts at 2026-02-22T11:59:59.999999Z, more than 7 days ago; \
             this service takes no readings that old: ask the operator"
        );
        // The end alone would be young enough.
        assert!(
            check(
                NOON - TimeDelta::days(7) + TimeDelta::hours(23),
                TimeDelta::hours(24)
            )
            .is_err()
        );
        assert_eq!(check(NOON + CLOCK_SKEW, quarter), Ok(()));
        assert_eq!(
            check(NOON + CLOCK_SKEW + micro, quarter)
                .unwrap_err()
                .to_string(),
            "reading_timestamp 2026-03-01T12:05:00.000001Z is more than 5 minutes in the future; \
             check the meter's clock and send the reading once its interval is over"
        );
    }
}
