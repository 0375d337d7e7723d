//! The servers that are measured: the service, the bare server, and nchan.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gridtokenx::meters::Role;
use gridtokenx::outbox::{self, Event, EventFields, EventType, Topic};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::distr::{Alphanumeric, SampleString};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

use super::Options;
use super::client::{ClientPlan, MARK, Measurements};
use super::variant::{Compression, TargetName};
use crate::backend::{Backend, START_LIMIT, Service, TempDir, until};
use crate::process;

/// The user that an event is for, and that a client listens as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    Owner(usize),
    /// Every client: all listen as admins.
    Everyone,
}

impl Recipient {
    fn name(self) -> String {
        match self {
            Recipient::Owner(index) => format!("owner-{index}"),
            Recipient::Everyone => "everyone".to_owned(),
        }
    }
}

/// One server that is measured. Dropping it kills its processes.
pub struct Target {
    pub name: TargetName,
    pub address: SocketAddr,
    /// The process whose memory and processor time are measured.
    pub pid: u32,
    pub compression: Compression,
    kind: Kind,
    children: Vec<Child>,
}

impl Drop for Target {
    fn drop(&mut self) {
        // nginx' worker outlives a killed master, and a living master replaces its worker: so first the master, then the worker.
        // Neither was waited for yet, so their ids cannot belong to other processes.
        if matches!(self.kind, Kind::Nchan { .. }) {
            let master = self.children.first().and_then(Child::id);
            for pid in master.into_iter().chain([self.pid]) {
                if let Ok(pid) = i32::try_from(pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }
}

enum Kind {
    Service(Box<Service>),
    Bare(ChildStdin),
    Nchan {
        publisher: TcpStream,
        _files: TempDir,
    },
}

impl Target {
    /// The settings with which a client connects to this server.
    pub fn client(&self, recipient: Recipient) -> Result<ClientPlan> {
        let (path, token) = match &self.kind {
            Kind::Service(service) => {
                let role = match recipient {
                    Recipient::Owner(_) => Role::User,
                    Recipient::Everyone => Role::Admin,
                };
                let day = Duration::from_secs(86_400);
                (
                    "/ws".to_owned(),
                    Some(service.tokens.issue(&recipient.name(), role, day)?),
                )
            }
            Kind::Bare(_) => (format!("/{}", recipient.name()), None),
            Kind::Nchan { .. } => (format!("/sub/{}", recipient.name()), None),
        };
        let is_service = token.is_some();
        Ok(ClientPlan {
            address: self.address,
            path,
            token,
            deflate: self.compression == Compression::On,
            first_message: is_service.then(|| r#"{"type":"subscribe"}"#.to_owned()),
            expects_hello: is_service,
            reading_pause: None,
        })
    }

    /// The message with which a client resumes after its last event, which is as far behind the newest one as there are owners.
    /// `None` for servers that keep no events.
    pub async fn resume(&self, owners: usize) -> Result<Option<String>> {
        let Kind::Service(service) = &self.kind else {
            return Ok(None);
        };
        let newest: i64 = sqlx::query_scalar("SELECT last_seq FROM feed_head")
            .fetch_one(&service.pool)
            .await?;
        let after = newest.saturating_sub_unsigned(owners as u64).max(0);
        Ok(Some(format!(r#"{{"type":"resume","after":{after}}}"#)))
    }

    /// Streams that the service closed because of an error or because the client was too slow; `None` for servers without the
    /// metric.
    pub async fn streams_closed_by_service(&self) -> Result<Option<f64>> {
        const METRIC: &str = "gridtokenx_websocket_errors_total ";
        if !matches!(self.kind, Kind::Service(_)) {
            return Ok(None);
        }
        let url = format!("http://{}/metrics", self.address);
        let metrics = reqwest::get(url).await?.text().await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(METRIC));
        Ok(Some(value.context("the metric is missing")?.parse()?))
    }

    /// Sends events at once: in one transaction or one write.
    pub async fn publish(
        &mut self,
        events: &[(Recipient, usize)],
        padding: usize,
        measurements: &Measurements,
    ) -> Result<()> {
        let sent = || {
            events
                .iter()
                .for_each(|(_, number)| measurements.record_sent(*number))
        };
        let documents: Vec<Event> = events
            .iter()
            .map(|(recipient, number)| event(*recipient, *number, padding))
            .collect();
        match &mut self.kind {
            Kind::Service(service) => {
                let mut transaction = service.pool.begin().await?;
                outbox::publish(&mut transaction, &documents).await?;
                outbox::notify(&mut transaction, Topic::Outbox).await?;
                sent();
                transaction.commit().await?;
            }
            Kind::Bare(stdin) => {
                let mut lines = String::new();
                for ((recipient, _), document) in events.iter().zip(&documents) {
                    lines.push_str(&format!("{}\t{}\n", recipient.name(), document.body()));
                }
                sent();
                stdin.write_all(lines.as_bytes()).await?;
            }
            Kind::Nchan { publisher, .. } => {
                let mut requests = String::new();
                for ((recipient, _), document) in events.iter().zip(&documents) {
                    let (name, body) = (recipient.name(), document.body());
                    requests.push_str(&format!(
                        "POST /pub/{name} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    ));
                }
                sent();
                publisher.write_all(requests.as_bytes()).await?;
                // The responses are read and ignored.
                let mut answers = [0; 16 * 1024];
                while publisher.try_read(&mut answers).is_ok_and(|read| read > 0) {}
            }
        }
        Ok(())
    }
}

/// An event as long as a `TokensMinted`. The padding is noise, which does not compress.
fn event(recipient: Recipient, number: usize, padding: usize) -> Event {
    let fields = EventFields {
        user_id: match recipient {
            Recipient::Owner(_) => Some(recipient.name()),
            Recipient::Everyone => None,
        },
        wallet_address: Some("7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU".to_owned()),
        meter_id: Some(format!("meter-of-{}", recipient.name())),
        reading_id: Some(uuid::Uuid::now_v7()),
        kwh_amount: Some("1.25".to_owned()),
        error_reason: Some(format!(
            "{MARK}{number} {}",
            Alphanumeric.sample_string(&mut rand::rng(), padding)
        )),
        ..EventFields::default()
    };
    Event::new(EventType::MintFailed, &fields)
}

/// Starts a service for the feed on a new database.
pub async fn service(
    backend: &Backend,
    options: &Options,
    compression: Compression,
) -> Result<Target> {
    let connections = (options.connections + 500).to_string();
    let compressed = (compression == Compression::On).to_string();
    let service = Service::start(
        backend,
        &[
            ("WEBSOCKET_MAX_CONNECTIONS", connections.as_str()),
            ("WEBSOCKET_RATE_LIMIT_EVENTS_PER_MINUTE", "60000"),
            // Small, so that slow readers are closed during the soak test.
            ("WEBSOCKET_EVENT_BUFFER_SIZE", "100"),
            ("WEBSOCKET_COMPRESSION_ENABLED", compressed.as_str()),
        ],
    )
    .await?;
    Ok(Target {
        name: TargetName::Service,
        address: service.address,
        pid: service.pid,
        compression,
        kind: Kind::Service(Box::new(service)),
        children: Vec::new(),
    })
}

/// Starts the bare server as a process. It also ends when its input does.
pub async fn bare(compression: Compression) -> Result<Target> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["feed", "--bare-server"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let line = tokio::time::timeout(START_LIMIT, lines.next_line()).await??;
    Ok(Target {
        name: TargetName::Bare,
        address: line.context("the bare server did not start")?.parse()?,
        pid: child.id().context("it ended")?,
        compression,
        kind: Kind::Bare(child.stdin.take().context("no input")?),
        children: vec![child],
    })
}

/// Starts nginx with nchan and one worker; an error if it is not installed or does not start.
pub async fn nchan(options: &Options, compression: Compression) -> Result<Target> {
    for file in [&options.nginx, &options.nchan] {
        ensure!(file.exists(), "skipped: {} is missing", file.display());
    }
    let files = TempDir::new()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    std::fs::write(
        files.path().join("nginx.conf"),
        nginx_conf(options, port, compression)?,
    )?;
    let nginx = || {
        let mut command = Command::new(&options.nginx);
        command
            .arg("-p")
            .arg(files.path())
            .args(["-c", "nginx.conf", "-e", "error.log"]);
        command
    };
    // nginx prints what is missing.
    ensure!(
        nginx().arg("-t").status().await?.success(),
        "skipped: nginx does not start with nchan"
    );
    let child = nginx()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let publisher = until("nginx listens", START_LIMIT, async || {
        TcpStream::connect(address).await.ok()
    })
    .await?;
    let master = child.id().context("nginx ended")?;
    let pid = until("nginx has a worker", START_LIMIT, async || {
        process::child_of(master)
    })
    .await?;
    Ok(Target {
        name: TargetName::Nchan,
        address,
        pid,
        compression,
        kind: Kind::Nchan {
            publisher,
            _files: files,
        },
        children: vec![child],
    })
}

fn nginx_conf(options: &Options, port: u16, compression: Compression) -> Result<String> {
    let module = absolute(&options.nchan)?;
    let files = options.connections + 1_000;
    let user = if nix::unistd::Uid::effective().is_root() {
        "user root;"
    } else {
        ""
    };
    // Without this, nchan sends messages uncompressed.
    let deflate = if compression == Compression::On {
        "nchan_deflate_message_for_websocket on;"
    } else {
        ""
    };
    Ok(format!(
        "load_module {module}; {user} daemon off; worker_processes 1; worker_rlimit_nofile {files}; pid nginx.pid;
         events {{ worker_connections {files}; }}
         http {{
             access_log off; keepalive_requests 100000000; keepalive_timeout 3600s;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             nchan_shared_memory_size 512M;
             server {{
                 listen 127.0.0.1:{port} backlog=4096;
                 location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
                 location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 10; {deflate} }}
             }}
         }}"
    ))
}

fn absolute(path: &Path) -> Result<String> {
    Ok(path.canonicalize()?.display().to_string())
}
