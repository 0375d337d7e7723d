//! A proxy between service and Postgres that can lose the answer to a COMMIT or a statement, as a network does, and counts the
//! statements that pass.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

/// What happens to a COMMIT. The client cannot distinguish these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive, and the connection breaks: nothing is committed.
    Before,
    /// It does not arrive, and the connection is silent afterwards: the server ends the session later.
    Lost,
    /// It is executed, and the connection breaks before the answer.
    After,
    /// It is executed, and the connection is silent afterwards.
    Silence,
}

/// Which COMMITs are cut: those of transactions that ran this statement, this many times.
struct Plan {
    statement: &'static str,
    cut: Cut,
    left: usize,
}

/// How many more sessions stall at this statement, and how many did.
struct Stall {
    statement: &'static str,
    left: usize,
    done: usize,
}

struct Shared {
    plan: Mutex<Option<Plan>>,
    cuts: AtomicUsize,
    stalls: Mutex<Vec<Stall>>,
    /// Cancelled: nothing passes in any session.
    all_stalled: CancellationToken,
    /// How often each prepared statement was run.
    runs: Mutex<HashMap<String, usize>>,
}

/// A proxy for one test; dropping it breaks all connections.
pub struct DatabaseProxy {
    /// URL of the same database through the proxy.
    pub url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl DatabaseProxy {
    /// Starts a proxy that forwards everything.
    pub async fn start(database_url: &str) -> DatabaseProxy {
        let mut url = Url::parse(database_url).unwrap();
        let target = format!("127.0.0.1:{}", url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        // The proxy reads the protocol: no encryption.
        url.query_pairs_mut().append_pair("sslmode", "disable");
        let shared = Arc::new(Shared {
            plan: Mutex::new(None),
            cuts: AtomicUsize::new(0),
            stalls: Mutex::default(),
            all_stalled: CancellationToken::new(),
            runs: Mutex::new(HashMap::new()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&shared)));
        DatabaseProxy {
            url: url.to_string(),
            shared,
            _tasks: tasks,
        }
    }

    /// From now on the next `times` COMMITs of transactions that run a statement with this text are cut.
    pub fn cut_commits_of(&self, statement: &'static str, cut: Cut, times: usize) {
        *self.shared.plan() = Some(Plan {
            statement,
            cut,
            left: times,
        });
    }

    /// The sessions of the next `times` runs of a statement with this text stall: the server executes it, but neither its answer
    /// nor the end of the connection arrives.
    pub fn stall_at(&self, statement: &'static str, times: usize) {
        self.shared.stalls().push(Stall {
            statement,
            left: times,
            done: 0,
        });
    }

    /// Sessions that stalled at this statement.
    pub fn stalled_at(&self, statement: &str) -> usize {
        let stalls = self.shared.stalls();
        let here = stalls.iter().filter(|stall| stall.statement == statement);
        here.map(|stall| stall.done).sum()
    }

    /// All sessions stall, and so does every new one.
    pub fn stall_all(&self) {
        self.shared.all_stalled.cancel();
    }

    /// Runs so far of statements with this text.
    pub fn runs_of(&self, text: &str) -> usize {
        let runs = self.shared.runs();
        let found = runs
            .iter()
            .filter(|(statement, _)| statement.contains(text));
        found.map(|(_, runs)| runs).sum()
    }

    /// COMMITs that were cut.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn plan(&self) -> std::sync::MutexGuard<'_, Option<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stalls(&self) -> std::sync::MutexGuard<'_, Vec<Stall>> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session that runs this statement stalls.
    fn should_stall_at(&self, statement: &str) -> bool {
        let mut stalls = self.stalls();
        let stall = stalls
            .iter_mut()
            .find(|stall| stall.left > 0 && statement.contains(stall.statement));
        stall.is_some_and(|stall| {
            stall.left -= 1;
            stall.done += 1;
            true
        })
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a transaction that ran these statements is cut at its COMMIT.
    fn take_cut(&self, ran: &[String]) -> Option<Cut> {
        let mut plan = self.plan();
        let plan = plan.as_mut().filter(|plan| {
            plan.left > 0
                && ran
                    .iter()
                    .any(|statement| statement.contains(plan.statement))
        })?;
        plan.left -= 1;
        self.cuts.fetch_add(1, Ordering::SeqCst);
        Some(plan.cut)
    }
}

async fn accept(listener: TcpListener, target: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let (target, shared) = (target.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // Breaking connections is what this proxy is for.
                    let _ = forward(client, &target, &shared).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(client: TcpStream, target: &str, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let stalled = shared.all_stalled.child_token();
    let cut = {
        let up = forward_until_cut(&mut from_client, &mut to_server, shared, &stalled);
        let down = async {
            let copied = tokio::io::copy(&mut from_server, &mut to_client);
            if stalled.run_until_cancelled(copied).await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            cut = up => cut?,
            () = down => return Ok(()),
        }
    };
    let (commit, cut) = cut;
    match cut {
        Cut::Before => {}
        Cut::Lost => std::future::pending().await,
        Cut::After | Cut::Silence => {
            to_server.write_all(&commit).await?;
            // The first byte of the answer arrives once the commit is done.
            from_server.read_u8().await?;
            if cut == Cut::Silence {
                std::future::pending::<()>().await;
            }
        }
    }
    Ok(())
}

/// Forwards message by message until a COMMIT must be cut; returns that message, which was not forwarded.
async fn forward_until_cut(
    client: &mut OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    shared: &Shared,
    stalled: &CancellationToken,
) -> std::io::Result<(Vec<u8>, Cut)> {
    // The first message has no type.
    let startup = read_body(client, Vec::new()).await?;
    server.write_all(&startup).await?;
    let mut prepared: HashMap<String, String> = HashMap::new();
    let mut ran: Vec<String> = Vec::new();
    loop {
        let kind = client.read_u8().await?;
        let message = read_body(client, vec![kind]).await?;
        let mut texts = message[5..]
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned());
        match kind {
            b'P' => {
                let name = texts.next().unwrap_or_default();
                prepared.insert(name, texts.next().unwrap_or_default());
            }
            b'B' => {
                let name = texts.nth(1).unwrap_or_default();
                if let Some(statement) = prepared.get(&name) {
                    *shared.runs().entry(statement.clone()).or_default() += 1;
                    ran.push(statement.clone());
                    if shared.should_stall_at(statement) {
                        stalled.cancel();
                    }
                }
            }
            b'Q' => {
                let statement = texts.next().unwrap_or_default();
                if statement == "COMMIT"
                    && let Some(cut) = shared.take_cut(&ran)
                {
                    return Ok((message, cut));
                }
                ran.clear();
            }
            _ => {}
        }
        server.write_all(&message).await?;
    }
}

/// Reads a length and as many bytes, and appends both to `message`.
async fn read_body(client: &mut OwnedReadHalf, mut message: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    message.extend(length.to_be_bytes());
    let start = message.len();
    message.resize(start + length as usize - 4, 0);
    client.read_exact(&mut message[start..]).await?;
    Ok(message)
}
