//! The consensus that a test's cluster runs. The shared chain runs Tower; the two forms of Alpenglow are played in front of it.
//!
//! A test without more runs on mainnet's consensus of today, [`Consensus::Alpenglow`], where what is confirmed is final: nothing
//! waits 31 slots. `TEST_CONSENSUS=tower|alpenglow|alpenglow-without-confirmed` chooses another for all of them. A scenario whose
//! promise depends on it is run by [`under_each_consensus`] or [`under_tower`].

use std::sync::LazyLock;

use solana_commitment_config::CommitmentConfig;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consensus {
    Tower,
    Alpenglow,
    /// Alpenglow on a node that refuses the commitment `confirmed`.
    AlpenglowWithoutConfirmed,
}

/// For a test that names none.
static DEFAULT: LazyLock<Consensus> =
    LazyLock::new(|| match std::env::var("TEST_CONSENSUS").as_deref() {
        Err(_) | Ok("alpenglow") => Consensus::Alpenglow,
        Ok("tower") => Consensus::Tower,
        Ok("alpenglow-without-confirmed") => Consensus::AlpenglowWithoutConfirmed,
        Ok(other) => panic!(
            "TEST_CONSENSUS={other:?} is not tower, alpenglow or alpenglow-without-confirmed"
        ),
    });

tokio::task_local! {
    static CHOSEN: Consensus;
}

impl Consensus {
    /// Of the running test.
    pub fn current() -> Self {
        CHOSEN.try_with(|chosen| *chosen).unwrap_or(*DEFAULT)
    }

    /// The commitment at which a test reads the newest state that does not vanish by a skipped slot.
    pub fn newest_commitment(self) -> CommitmentConfig {
        match self {
            Consensus::Tower | Consensus::Alpenglow => CommitmentConfig::confirmed(),
            Consensus::AlpenglowWithoutConfirmed => CommitmentConfig::finalized(),
        }
    }

    /// Runs a scenario on clusters of this consensus.
    pub async fn run(self, scenario: impl Future<Output = ()>) {
        CHOSEN.scope(self, scenario).await;
    }
}

/// Makes a test of each scenario under each consensus, in a module of its name.
macro_rules! under_each_consensus {
    ($($scenario:ident),+ $(,)?) => {
        $(mod $scenario {
            use crate::support::consensus::Consensus;

            #[tokio::test(flavor = "multi_thread")]
            async fn tower() {
                Consensus::Tower.run(super::$scenario()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn alpenglow() {
                Consensus::Alpenglow.run(super::$scenario()).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn alpenglow_without_confirmed() {
                Consensus::AlpenglowWithoutConfirmed.run(super::$scenario()).await;
            }
        })+
    };
}

/// Makes one test of each scenario, in a module of its name: what it promises is about the time between confirmed and final.
macro_rules! under_tower {
    ($($scenario:ident),+ $(,)?) => {
        $(mod $scenario {
            #[tokio::test(flavor = "multi_thread")]
            async fn tower() {
                crate::support::consensus::Consensus::Tower.run(super::$scenario()).await;
            }
        })+
    };
}

pub(crate) use {under_each_consensus, under_tower};
