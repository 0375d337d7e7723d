//! Estimates how long the fee payer's balance will last.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use crate::chain::FeeBudgetView;
use crate::ledger::{self, Spending};
use crate::telemetry::metric_value;

/// The shortest time over which a rate is computed: the first readings of a new deployment do not give a rate yet.
const RATE_OVER_AT_LEAST: TimeDelta = TimeDelta::minutes(10);

/// Balance, price and rate, and the forecast that follows from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Runway {
    pub balance_lamports: u64,
    /// The part of the balance that transactions in flight may still take.
    pub reserved_lamports: u64,
    /// The part that must remain: the fee payer's own rent minimum.
    pub minimum_lamports: u64,
    /// Fees and account rent of the last six hours, divided by their readings; rounded up. Before any reading was minted: the
    /// fee of a transaction for one reading, to a wallet that has its token account. Readings that share a transaction cost less.
    pub lamports_per_reading: u64,
    /// Average of the last six hours.
    pub readings_per_hour: f64,
    /// Hours until the balance is spent at this price and rate: zero when not one more fee can be paid, `None` while the
    /// balance is positive and nothing is spent.
    pub hours: Option<f64>,
    /// Readings for new wallets wait, because the balance does not cover the rent of their token accounts.
    pub new_wallets_wait: bool,
}

impl Runway {
    /// `None` before the fee payer's balance was read.
    pub async fn read(
        pool: &PgPool,
        fee_budget: Option<FeeBudgetView>,
    ) -> sqlx::Result<Option<Runway>> {
        let Some(fee_budget) = fee_budget else {
            return Ok(None);
        };
        let spending = ledger::recent_spending(pool).await?;
        Ok(Some(Runway::of(fee_budget, spending, Utc::now())))
    }

    fn of(fee_budget: FeeBudgetView, spending: Spending, now: DateTime<Utc>) -> Runway {
        let lamports_per_reading = match spending.readings {
            0 => fee_budget.funds.least_fee,
            readings => spending.lamports.div_ceil(readings),
        };
        let at_least = if spending.only_the_newest {
            TimeDelta::seconds(1)
        } else {
            RATE_OVER_AT_LEAST
        };
        let over = spending
            .since
            .map_or(at_least, |since| now - since)
            .max(at_least);
        let per_hour = |count: u64| metric_value(count) * 3_600.0 / over.as_seconds_f64();
        let lamports_per_hour = per_hour(spending.lamports);
        let hours = if fee_budget.is_empty() {
            // Even if an empty balance prevented any spending for hours.
            Some(0.0)
        } else {
            (lamports_per_hour > 0.0)
                .then(|| metric_value(fee_budget.spendable) / lamports_per_hour)
        };
        Runway {
            balance_lamports: fee_budget.funds.balance,
            reserved_lamports: fee_budget.reserved,
            minimum_lamports: fee_budget.funds.minimum,
            lamports_per_reading,
            readings_per_hour: per_hour(spending.readings),
            hours,
            new_wallets_wait: fee_budget.shortfall.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Funds;

    fn fee_budget(spendable: u64) -> FeeBudgetView {
        FeeBudgetView {
            funds: Funds {
                balance: spendable + 890_880 + 7,
                minimum: 890_880,
                in_flight: 7,
                least_fee: 5_000,
            },
            reserved: 7,
            spendable,
            shortfall: None,
        }
    }

    #[test]
    fn the_forecast_is_the_spendable_balance_over_the_spending() {
        let now = Utc::now();
        let spending = Spending {
            readings: 3_000,
            lamports: 6_000_001,
            since: Some(now - TimeDelta::hours(2)),
            only_the_newest: false,
        };
        let runway = Runway::of(fee_budget(30_000_000), spending, now);
        assert_eq!(runway.lamports_per_reading, 2_001);
        assert!((runway.readings_per_hour - 1_500.0).abs() < 0.1);
        assert!((runway.hours.unwrap() - 10.0).abs() < 0.01);
    }

    #[test]
    fn a_new_deployment_has_an_assumed_price_and_no_end_of_the_runway() {
        let now = Utc::now();
        let runway = Runway::of(fee_budget(5_000), Spending::default(), now);
        assert_eq!(runway.lamports_per_reading, 5_000);
        assert_eq!((runway.readings_per_hour, runway.hours), (0.0, None));
        // Ten readings in the first second are not 36,000 an hour.
        let first = Spending {
            readings: 10,
            lamports: 10_000,
            since: Some(now - TimeDelta::seconds(1)),
            only_the_newest: false,
        };
        assert!((Runway::of(fee_budget(5_000), first, now).readings_per_hour - 60.0).abs() < 0.1);
        // Unless they are only the newest readings of a heavy load.
        let load = Spending {
            only_the_newest: true,
            ..first
        };
        assert!(
            (Runway::of(fee_budget(5_000), load, now).readings_per_hour - 36_000.0).abs() < 0.1
        );
    }

    #[test]
    fn the_runway_of_an_empty_fee_payer_is_zero_however_long_nothing_was_spent() {
        let now = Utc::now();
        for lamports in [0, 5_000] {
            let spending = Spending {
                readings: lamports / 5_000,
                lamports,
                since: (lamports > 0).then_some(now - TimeDelta::hours(5)),
                only_the_newest: false,
            };
            for spendable in [0, 4_999] {
                let hours = Runway::of(fee_budget(spendable), spending, now).hours;
                assert_eq!(hours, Some(0.0), "{spendable} left, {lamports} spent");
            }
        }
    }
}
