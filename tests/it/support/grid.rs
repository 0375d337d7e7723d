//! One test's world: a database, a mint authority with its mint, and as many services on them as the test starts.

use gridtokenx::commands::serve::{self, RunningService};
use gridtokenx::config::Config;
use gridtokenx::meters::Role;
use serde_json::Value;
use sqlx::PgPool;

use super::client::{Api, JWT_SECRET, Meter};
use super::localnet::TempDir;
use super::secrets;
use super::server::Server;
use super::wait::eventually;
use super::world::world;

/// A service in this process, its database, and access to both. More services can be put on the same database.
pub struct Grid {
    pub database_url: String,
    pub rpc_url: String,
    pub data_dir: TempDir,
    pub pool: PgPool,
    settings: Vec<(&'static str, String)>,
    service: Option<RunningService>,
}

impl Grid {
    /// A database and a chain, and a service on them.
    pub async fn start() -> Grid {
        Grid::start_with(&[]).await
    }

    /// With more settings, by the names of their variables.
    pub async fn start_with(settings: &[(&'static str, &str)]) -> Grid {
        let mut grid = Grid::without_service(settings).await;
        grid.serve().await;
        grid
    }

    /// A service that has paid one reading of 1 kWh: its transaction is finalized.
    pub async fn with_one_payment() -> (Grid, Meter) {
        let grid = Grid::start().await;
        let meter = grid.meter().await;
        meter.report("1").await;
        grid.until_count("finalized", 1).await;
        (grid, meter)
    }

    /// A database and a chain; the test starts its own services.
    pub async fn without_service(settings: &[(&'static str, &str)]) -> Grid {
        Grid::on_chain(world().rpc_url(), settings).await
    }

    /// On another chain than the shared one, or on one endpoint of it.
    pub async fn on_chain(rpc_url: &str, settings: &[(&'static str, &str)]) -> Grid {
        let name = format!("grid_{}", uuid::Uuid::now_v7().simple());
        let database_url = world().create_database(&name).await;
        Grid::on(&database_url, rpc_url, settings).await
    }

    /// On exactly this database and chain.
    pub async fn on(database_url: &str, rpc_url: &str, settings: &[(&'static str, &str)]) -> Grid {
        let pool = PgPool::connect(database_url).await.unwrap();
        Grid {
            database_url: database_url.to_owned(),
            rpc_url: rpc_url.to_owned(),
            data_dir: TempDir::new("grid"),
            pool,
            settings: settings
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            service: None,
        }
    }

    /// The settings of a service of this grid.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("DATABASE_URL", self.database_url.clone()),
            // A service uses all that it may, and each costs both sides more processor time than most tests' statements.
            ("DATABASE_MAX_CONNECTIONS", "5".to_owned()),
            ("SOLANA_RPC_URL", self.rpc_url.clone()),
            ("HTTP_ADDR", "127.0.0.1:0".to_owned()),
            ("SHUTDOWN_TIMEOUT_SECS", "20".to_owned()),
            (
                "GRIDTOKENX_DATA_DIR",
                self.data_dir.path().display().to_string(),
            ),
        ];
        // One or the other: see `Config::check`.
        if !self
            .settings
            .iter()
            .any(|(name, _)| *name == "JWT_JWKS_URL")
        {
            environment.push(("JWT_SECRET", JWT_SECRET.to_owned()));
        }
        environment.extend(self.settings.clone());
        environment
    }

    fn config(&self) -> Config {
        let flags = self
            .environment()
            .into_iter()
            .map(|(name, value)| format!("--{}={value}", name.to_lowercase().replace('_', "-")));
        Config::from_flags(flags).unwrap()
    }

    /// Starts the service in this process.
    pub async fn serve(&mut self) {
        let service = serve::start(self.config()).await;
        self.service = Some(service.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Drains the service; true when it finished everything it had begun.
    pub async fn stop(&mut self) -> bool {
        match self.service.take() {
            Some(service) => service.shutdown().await,
            None => true,
        }
    }

    /// Starts a service in its own process.
    pub async fn spawn(&self, more: &[(&str, &str)]) -> Server {
        Server::spawn(self.environment(), more).await
    }

    pub fn api_url(&self) -> String {
        self.service.as_ref().expect("a service runs").api_url()
    }

    pub fn user(&self, subject: &str) -> Api {
        Api::new(&self.api_url(), subject, Role::User)
    }

    pub fn admin(&self) -> Api {
        Api::new(&self.api_url(), "an admin", Role::Admin)
    }

    /// A meter of the user "prosumer".
    pub async fn meter(&self) -> Meter {
        self.user("prosumer").meter().await
    }

    /// A copy of this grid's database, as a dump that is restored in the same cluster. Closes the connections to the original.
    pub async fn copy_database(&self, suffix: &str) -> String {
        let original = self.database_url.rsplit('/').next().unwrap();
        let original = original.split('?').next().unwrap();
        self.pool.close().await;
        let copy = format!("{original}_{suffix}");
        let copied = world().cluster.copy_database(&copy, original).await;
        copied.unwrap()
    }

    /// The next services run on this database.
    pub async fn move_to(&mut self, database_url: &str) {
        self.pool.close().await;
        self.database_url = database_url.to_owned();
        self.pool = PgPool::connect(database_url).await.unwrap();
    }

    /// Runs a statement that changes the database behind the service's back.
    pub async fn execute(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.pool).await.unwrap();
    }

    /// Readings by state.
    pub async fn count(&self, state: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM readings WHERE state = $1")
            .bind(state)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Readings that are on chain. One statement: a reading that becomes final between two would count twice.
    pub async fn landed(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM readings WHERE state IN ('minted', 'finalized')")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until that many readings are in the state.
    pub async fn until_count(&self, state: &str, wanted: i64) {
        eventually(&format!("{wanted} readings are {state}"), async || {
            (self.count(state).await == wanted).then_some(())
        })
        .await;
    }

    /// Waits until that many readings are minted or finalized: under Alpenglow, minted ones are finalized at once.
    pub async fn until_landed(&self, wanted: i64) {
        eventually(&format!("{wanted} readings have landed"), async || {
            (self.landed().await == wanted).then_some(())
        })
        .await;
    }

    /// Waits until the condition holds.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        eventually(what, async || is_so().await.then_some(())).await;
    }

    /// Texts that no log, page or document may contain: the secrets of the service, and the tokens of these callers.
    pub fn secrets(&self, callers: &[&Api]) -> Vec<String> {
        let mut secrets = secrets::key_forms(&self.data_dir.path().join("mint-authority.json"));
        for caller in callers {
            secrets.extend(secrets::token_forms(&caller.token));
        }
        secrets.push(JWT_SECRET.to_owned());
        secrets.push(secrets::password_of(&self.database_url));
        secrets
    }

    /// The audit's report.
    pub async fn audit(&self) -> Value {
        super::server::audit(&self.environment()).await
    }

    /// Runs the audit and demands that it holds.
    pub async fn audit_holds(&self) -> Value {
        let report = self.audit().await;
        assert_eq!(report["ok"], true, "{report:#}");
        report
    }
}
