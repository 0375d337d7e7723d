//! Registers meters.

use solana_sdk::pubkey::Pubkey;
use sqlx::PgPool;

use super::caller::Caller;
use super::error::MeterError;
use super::meter::Meter;
use super::meters_table::{self, NewRow};
use super::wallet_account::check_wallet_account;
use crate::chain::Endpoints;
use crate::domain::{MeterSerial, Wallet};

/// Smart meters report quarter-hours unless registered otherwise.
const INTERVAL_MINUTES_DEFAULT: u16 = 15;
/// A day.
const INTERVAL_MINUTES_MAX: u16 = 24 * 60;
/// Longest subject of a token.
const OWNER_CHARACTERS_MAX: usize = 128;

/// A meter as the caller describes it.
#[derive(Clone, Debug)]
pub struct NewMeter {
    pub meter_id: String,
    pub wallet_address: String,
    /// Minutes; 15 when left out.
    pub interval_minutes: Option<i64>,
    /// The caller when left out.
    pub owner: Option<String>,
}

/// The meter as it is registered now.
#[derive(Clone, Debug)]
pub struct Registration {
    pub meter: Meter,
    /// False when the same meter was registered before.
    pub created: bool,
}

/// Registers a meter, or finds it registered with the same values. `mint` is this service's token, which is not a wallet.
pub async fn register(
    pool: &PgPool,
    endpoints: &Endpoints,
    mint: &Pubkey,
    caller: &Caller,
    new: NewMeter,
) -> Result<Registration, MeterError> {
    let serial = MeterSerial::parse(&new.meter_id)?;
    let wallet = Wallet::parse(&new.wallet_address)?;
    wallet.check_not_mint(mint)?;
    let interval_minutes = parse_interval(new.interval_minutes)?;
    let owner = owner_for(caller, new.owner)?;
    let row = NewRow {
        serial: &serial,
        owner: &owner,
        wallet,
        interval_minutes,
    };
    // First, so that a repeated registration is answered while the chain is unreachable.
    if let Some(meter) = meters_table::find_by_serial(pool, &serial).await? {
        return registered_before(meter, &row);
    }
    check_wallet_account(endpoints, wallet).await?;
    if let Some(meter) = meters_table::insert(pool, &row).await? {
        return Ok(Registration {
            meter,
            created: true,
        });
    }
    // A concurrent request was faster. Meters are never deleted.
    let meter = meters_table::find_by_serial(pool, &serial)
        .await?
        .ok_or(sqlx::Error::RowNotFound)?;
    registered_before(meter, &row)
}

fn parse_interval(minutes: Option<i64>) -> Result<u16, MeterError> {
    let Some(minutes) = minutes else {
        return Ok(INTERVAL_MINUTES_DEFAULT);
    };
    u16::try_from(minutes)
        .ok()
        .filter(|minutes| (1..=INTERVAL_MINUTES_MAX).contains(minutes))
        .ok_or(MeterError::IntervalMinutes { minutes })
}

fn owner_for(caller: &Caller, owner: Option<String>) -> Result<String, MeterError> {
    let Some(owner) = owner else {
        return Ok(caller.subject.clone());
    };
    if !caller.may_see(&owner) {
        return Err(MeterError::OwnerOfAnother);
    }
    let characters = owner.chars().count();
    if !(1..=OWNER_CHARACTERS_MAX).contains(&characters) || owner.contains(char::is_control) {
        return Err(MeterError::Owner { characters });
    }
    Ok(owner)
}

fn registered_before(meter: Meter, again: &NewRow<'_>) -> Result<Registration, MeterError> {
    let serial = meter.serial.clone();
    if meter.owner != again.owner {
        return Err(MeterError::OwnedByAnother { serial });
    }
    if meter.wallet != again.wallet {
        return Err(MeterError::OtherWallet {
            serial,
            registered: meter.wallet,
        });
    }
    if meter.interval_minutes != again.interval_minutes {
        return Err(MeterError::OtherInterval {
            serial,
            registered: meter.interval_minutes,
        });
    }
    Ok(Registration {
        meter,
        created: false,
    })
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::meters::Role;

    fn caller(role: Role) -> Caller {
        Caller {
            subject: "alice".to_owned(),
            role,
        }
    }

    #[test]
    fn the_owner_is_the_caller_and_only_an_admin_may_name_another() {
        let owner = |role, owner: Option<&str>| owner_for(&caller(role), owner.map(str::to_owned));
        assert_eq!(owner(Role::User, None).unwrap(), "alice");
        assert_eq!(owner(Role::User, Some("alice")).unwrap(), "alice");
        assert!(matches!(
            owner(Role::User, Some("bob")),
            Err(MeterError::OwnerOfAnother)
        ));
        assert_eq!(owner(Role::Admin, Some("bob")).unwrap(), "bob");
        assert_eq!(
            owner(Role::Admin, Some(&"ö".repeat(128))).unwrap().len(),
            256
        );
        for bad in ["", "a\nb", "o".repeat(129).as_str()] {
            assert!(matches!(
                owner(Role::Admin, Some(bad)),
                Err(MeterError::Owner { .. })
            ));
        }
    }

    #[test]
    fn an_interval_is_one_minute_to_a_day() {
        assert_eq!(parse_interval(None).unwrap(), 15);
        assert_eq!(parse_interval(Some(1)).unwrap(), 1);
        assert_eq!(parse_interval(Some(1440)).unwrap(), 1440);
        for minutes in [0, -15, 1441, 65_551, i64::MAX] {
            assert_eq!(
                parse_interval(Some(minutes)).unwrap_err().to_string(),
                format!(
                    "interval_minutes {minutes} is out of range; a meter's interval is a whole number of minutes from 1 to 1440"
                )
            );
        }
    }

    #[test]
    fn a_repeated_registration_must_agree_in_every_value() {
        let meter = Meter {
            id: 1,
            serial: MeterSerial::parse("m-1").unwrap(),
            owner: "alice".to_owned(),
            wallet: Wallet::from_stored([1; 32]),
            interval_minutes: 15,
            rollout_bucket: 7,
            registered_at: Utc::now(),
        };
        let serial = meter.serial.clone();
        let same = NewRow {
            serial: &serial,
            owner: "alice",
            wallet: meter.wallet,
            interval_minutes: 15,
        };
        assert!(!registered_before(meter.clone(), &same).unwrap().created);
        let owner = NewRow {
            owner: "bob",
            ..same
        };
        assert!(matches!(
            registered_before(meter.clone(), &owner),
            Err(MeterError::OwnedByAnother { .. })
        ));
        let wallet = NewRow {
            wallet: Wallet::from_stored([2; 32]),
            ..same
        };
        assert!(matches!(
            registered_before(meter.clone(), &wallet),
            Err(MeterError::OtherWallet { .. })
        ));
        let interval = NewRow {
            interval_minutes: 30,
            ..same
        };
        assert!(matches!(
            registered_before(meter, &interval),
            Err(MeterError::OtherInterval { registered: 15, .. })
        ));
    }
}
