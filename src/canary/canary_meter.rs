//! The canary's meter: its serial, its owner, and the amount that it reports.

use rust_decimal::Decimal;

use crate::config::TokenizationConfig;
use crate::domain::{Kwh, MeterSerial, Wallet};

/// Owner of all canary meters; no identity provider should issue this subject.
pub const OWNER: &str = "gridtokenx-canary";

/// As long as the pause between two readings, minutes.
pub(super) const INTERVAL_MINUTES: i64 = 1;

/// Serials to try: 1 in 100 has the first roll-out bucket.
const TRIES: u32 = 10_000;
/// Characters of the wallet's address in the serial.
const ADDRESS_CHARACTERS: usize = 8;

/// The canary meter of this wallet: always the same one, and first in the roll-out, so that it is minted as soon as any meter
/// is.
pub(super) fn serial_for(wallet: Wallet) -> Option<MeterSerial> {
    let address: String = wallet
        .to_string()
        .chars()
        .take(ADDRESS_CHARACTERS)
        .collect();
    (0..TRIES)
        .filter_map(|number| MeterSerial::parse(&format!("canary-{address}-{number}")).ok())
        .find(|serial| serial.rollout_bucket() == 0)
}

/// The smallest power of ten, in kWh, that is worth a base unit; `None` when it is above the limit of one reading.
pub(super) fn smallest_amount(tokenization: &TokenizationConfig) -> Option<Kwh> {
    let base_units_per_token = Decimal::from(10_u64.checked_pow(u32::from(tokenization.decimals))?);
    let base_units_per_kwh = tokenization
        .kwh_to_token_ratio
        .checked_mul(base_units_per_token)?;
    let finest_first = (0..=Kwh::FRACTION_DIGITS_MAX)
        .rev()
        .map(|digits| Decimal::new(1, digits));
    let larger = (1..=9).map(|zeros| Decimal::from(10_u64.pow(zeros)));
    finest_first
        .chain(larger)
        .find(|kwh| {
            kwh.checked_mul(base_units_per_kwh)
                .is_some_and(|base_units| base_units >= Decimal::ONE)
        })
        .filter(|kwh| *kwh <= tokenization.max_reading_kwh)
        .and_then(|kwh| Kwh::from_decimal(kwh).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn amount(flags: &[&str]) -> Option<String> {
        let config = Config::from_flags(flags.iter().copied()).unwrap();
        smallest_amount(&config.tokenization).map(|kwh| kwh.to_string())
    }

    #[test]
    fn it_reports_the_least_energy_that_pays() {
        assert_eq!(amount(&[]).unwrap(), "0.000000001");
        let (ratio, decimals) = (
            "--tokenization-kwh-to-token-ratio=0.3",
            "--tokenization-decimals=2",
        );
        // 0.01 kWh would be worth 0.3 base units, rounded down to nothing.
        assert_eq!(amount(&[ratio, decimals]).unwrap(), "0.1");
        let (ratio, decimals) = (
            "--tokenization-kwh-to-token-ratio=0.001",
            "--tokenization-decimals=0",
        );
        assert_eq!(
            amount(&[ratio, decimals]),
            None,
            "a reading has 100 kWh at most"
        );
    }

    #[test]
    fn its_meter_is_first_in_the_roll_out_and_always_the_same() {
        for byte in 0..20 {
            let wallet = Wallet::from_stored([byte; 32]);
            let serial = serial_for(wallet).unwrap();
            assert_eq!(serial.rollout_bucket(), 0);
            assert!(serial.as_str().starts_with("canary-"));
            assert_eq!(serial_for(wallet), Some(serial));
        }
    }
}
