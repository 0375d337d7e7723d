//! The one Postgres cluster and the one local chain that all tests of a run share. Each test has its own database and its
//! own mint, so they do not see each other. Both end with this process, however it ends.

use std::sync::OnceLock;

use gridtokenx::config::Config;
use gridtokenx::db;
use gridtokenx::embedded::PostgresCluster;
use gridtokenx::fault_proxy::{CallAction, ConfirmedCommitment};
use sqlx::PgPool;

use super::consensus::Consensus;
use super::localnet::{Localnet, State};
use super::proxy::Proxy;

/// Blocks of a tenth of a second: finality takes three seconds and expiry fifteen, in the same order as with longer ones.
pub const SLOT_MS: u64 = 100;

/// A database with the schema of this version and nothing in it. Each test's database is a copy: that is quicker than to run
/// all migrations hundreds of times.
const TEMPLATE: &str = "template_of_tests";

pub struct World {
    pub cluster: PostgresCluster,
    /// The chain itself, which runs Tower.
    tower_url: String,
    /// In front of it, and used by all tests: a test must not change what it does with calls.
    alpenglow: Proxy,
    alpenglow_without_confirmed: Proxy,
}

static WORLD: OnceLock<World> = OnceLock::new();

/// Starts the world with the first test that needs it. Its tasks run on a runtime that outlives every test's own.
pub fn world() -> &'static World {
    WORLD.get_or_init(|| {
        // TEST_LOG=debug shows what the services of this process log.
        if let Ok(level) = std::env::var("TEST_LOG") {
            let log = Config::from_flags([format!("--log-level={level}")])
                .unwrap()
                .log;
            gridtokenx::telemetry::init_logs(&log).unwrap();
        }
        let starter = std::thread::spawn(|| {
            let runtime = Box::leak(Box::new(
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap(),
            ));
            runtime.block_on(start())
        });
        starter.join().expect("the world of the tests starts")
    })
}

impl World {
    /// An endpoint of the shared chain, under the consensus of the running test.
    pub fn rpc_url(&self) -> &str {
        match Consensus::current() {
            Consensus::Tower => &self.tower_url,
            Consensus::Alpenglow => &self.alpenglow.url,
            Consensus::AlpenglowWithoutConfirmed => &self.alpenglow_without_confirmed.url,
        }
    }

    /// Makes a database with the schema of this version and returns its URL.
    pub async fn create_database(&self, name: &str) -> String {
        self.cluster.copy_database(name, TEMPLATE).await.unwrap()
    }
}

async fn start() -> World {
    let cluster = PostgresCluster::ephemeral().await.unwrap();
    let template = cluster.create_database(TEMPLATE).await.unwrap();
    let pool = PgPool::connect(&template).await.unwrap();
    db::migrate(&pool).await.unwrap();
    pool.close().await;
    let slot_ms = SLOT_MS.to_string();
    let localnet = Localnet::start_with(
        State::Ephemeral,
        "127.0.0.1:0",
        &[("LOCALNET_SLOT_MS", slot_ms.as_str())],
    )
    .await;
    let tower_url = localnet.rpc_url.clone();
    // It ends with this process: see `children`.
    std::mem::forget(localnet);
    let under_alpenglow = async |confirmed| {
        let proxy = Proxy::start(&tower_url).await;
        proxy.on_call(move |_, _| CallAction::Alpenglow(confirmed));
        proxy
    };
    World {
        cluster,
        alpenglow: under_alpenglow(ConfirmedCommitment::Accepted).await,
        alpenglow_without_confirmed: under_alpenglow(ConfirmedCommitment::Refused).await,
        tower_url,
    }
}
