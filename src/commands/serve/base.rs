//! Opens the base of a process: configuration, database, health, tasks.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::start_error::StartError;
use crate::config::Config;
use crate::db::{self, Database};
use crate::outbox::Wake;
use crate::periodic::{PeriodicTask, TaskList};
use crate::telemetry::{Health, Metrics};

/// The base on which every part of a process is started.
pub(super) struct Base {
    pub config: Config,
    pub database: Database,
    pub health: Health,
    pub metrics: Metrics,
    pub wake: Wake,
    pub tasks: Tasks,
    /// The periodic tasks of this process.
    pub periodic: TaskList,
}

impl Base {
    /// Opens the database and runs its migrations.
    pub async fn open(config: Config, metrics: Metrics) -> Result<Base, StartError> {
        let limit = config.tokenization.transaction_timeout;
        let database = db::open(&config.database, limit).await?;
        Ok(Base {
            config,
            database,
            health: Health::default(),
            metrics,
            wake: Wake::default(),
            tasks: Tasks::new(),
            periodic: TaskList::default(),
        })
    }

    /// Runs a periodic task until the last step of the shutdown.
    pub fn start_periodic(&self, task: PeriodicTask) {
        self.spawn_background(|stop| task.run(&self.periodic, stop));
    }

    /// The same; returns after the first run.
    pub async fn start_with_first_run(&self, task: PeriodicTask) {
        let counter = self.periodic.add(task.timing());
        self.start_periodic(task);
        counter.until_first_run().await;
    }

    /// Runs a task in the background until the last step of the shutdown.
    pub fn spawn_background<T>(&self, task: impl FnOnce(CancellationToken) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        self.tasks
            .background
            .spawn(task(self.tasks.stops.last.clone()));
    }
}

/// The tasks of a process, by the step of the shutdown that ends them.
pub(super) struct Tasks {
    pub stops: Stops,
    /// Finish what the intake and the minter have begun.
    pub work: TaskTracker,
    /// Run until the last step.
    pub background: TaskTracker,
}

impl Tasks {
    fn new() -> Tasks {
        Tasks {
            stops: Stops {
                work: CancellationToken::new(),
                cut: CancellationToken::new(),
                last: CancellationToken::new(),
            },
            work: TaskTracker::new(),
            background: TaskTracker::new(),
        }
    }
}

/// One token for each step of the shutdown, besides those of the HTTP server.
pub(super) struct Stops {
    /// No new job starts.
    pub work: CancellationToken,
    /// Jobs that still run are cancelled.
    pub cut: CancellationToken,
    pub last: CancellationToken,
}
