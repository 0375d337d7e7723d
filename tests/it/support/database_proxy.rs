//! A proxy between service and Postgres that can take the answer to one COMMIT or statement away, as a network does, and
//! counts the statements that pass.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

/// What happens to a COMMIT. The client cannot tell these apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It does not arrive, and the connection breaks: nothing is committed.
    Before,
    /// It does not arrive, and the connection is silent from then on: the server gives the session up later.
    Lost,
    /// It is done, and the connection breaks before the answer.
    After,
    /// It is done, and the connection is silent from then on.
    Silence,
}

/// Which COMMITs are cut: those of transactions that ran this statement, so many times.
struct Plan {
    statement: &'static str,
    cut: Cut,
    left: usize,
}

/// How many sessions fall silent at this statement, and how many did.
struct Hush {
    statement: &'static str,
    left: usize,
    done: usize,
}

struct Shared {
    plan: Mutex<Option<Plan>>,
    cuts: AtomicUsize,
    hushes: Mutex<Vec<Hush>>,
    /// Cancelled: no session hears anything any more.
    silent: CancellationToken,
    /// How often each prepared statement was run.
    runs: Mutex<HashMap<String, usize>>,
}

/// A proxy of its own for one test; dropped, it breaks all connections.
pub struct DatabaseProxy {
    /// Leads to the same database, through the proxy.
    pub url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl DatabaseProxy {
    /// Forwards everything, until told otherwise.
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
            hushes: Mutex::default(),
            silent: CancellationToken::new(),
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

    /// The sessions of the next `times` runs of a statement with this text fall silent: it is done, but neither its answer nor
    /// an end of the connection comes.
    pub fn hush(&self, statement: &'static str, times: usize) {
        self.shared.hushes().push(Hush {
            statement,
            left: times,
            done: 0,
        });
    }

    /// Sessions that fell silent at this statement.
    pub fn hushed(&self, statement: &str) -> usize {
        let hushes = self.shared.hushes();
        let of_it = hushes.iter().filter(|hush| hush.statement == statement);
        of_it.map(|hush| hush.done).sum()
    }

    /// All sessions fall silent, and so is every new one.
    pub fn hush_all(&self) {
        self.shared.silent.cancel();
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

    fn hushes(&self) -> std::sync::MutexGuard<'_, Vec<Hush>> {
        self.hushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session that runs this statement falls silent.
    fn hushes_at(&self, statement: &str) -> bool {
        let mut hushes = self.hushes();
        let hush = hushes
            .iter_mut()
            .find(|hush| hush.left > 0 && statement.contains(hush.statement));
        hush.is_some_and(|hush| {
            hush.left -= 1;
            hush.done += 1;
            true
        })
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<String, usize>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a transaction that ran these statements is cut at its COMMIT.
    fn take(&self, ran: &[String]) -> Option<Cut> {
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
                    // A connection that breaks is what this proxy is about.
                    let _ = pass_on(client, &target, &shared).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass_on(client: TcpStream, target: &str, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let hushed = shared.silent.child_token();
    let cut = {
        let up = forward_until_cut(&mut from_client, &mut to_server, shared, &hushed);
        let down = async {
            let copied = tokio::io::copy(&mut from_server, &mut to_client);
            if hushed.run_until_cancelled(copied).await.is_none() {
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
            // The first byte of the answer comes when the commit is done.
            from_server.read_u8().await?;
            if cut == Cut::Silence {
                std::future::pending::<()>().await;
            }
        }
    }
    Ok(())
}

/// Forwards message by message until a COMMIT is to be cut; gives that message, which was not forwarded.
async fn forward_until_cut(
    client: &mut OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    shared: &Shared,
    hushed: &CancellationToken,
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
                    if shared.hushes_at(statement) {
                        hushed.cancel();
                    }
                }
            }
            b'Q' => {
                let statement = texts.next().unwrap_or_default();
                if statement == "COMMIT"
                    && let Some(cut) = shared.take(&ran)
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

/// Reads the length and what belongs to it, after what is there already.
async fn read_body(client: &mut OwnedReadHalf, mut message: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    message.extend(length.to_be_bytes());
    let start = message.len();
    message.resize(start + length as usize - 4, 0);
    client.read_exact(&mut message[start..]).await?;
    Ok(message)
}
