"""A separate system for the live check: local chain, `gridtokenx run`, a second `gridtokenx serve` on the same database,
and a Prometheus that scrapes both. Everything lives under one temporary directory, on free ports of the loopback, and is
ended by its process id.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from glob import glob
from pathlib import Path

from . import promql
from .failure import Failure

JOB = "gridtokenx"
# Where the alerts' links are to lead. No link is followed here.
GRAFANA = "https://grafana.example"
START_LIMIT_SECS = 60
END_LIMIT_SECS = 30
REQUEST_LIMIT_SECS = 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, is_so, limit=START_LIMIT_SECS, pause=0.2):
    """The first answer that is neither None, nor False, nor an empty list."""
    end = time.monotonic() + limit
    while True:
        answer = is_so()
        if answer is not None and answer is not False and answer != []:
            return answer
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {limit} s")
        time.sleep(pause)


class Process:
    """A child; only ever signalled through its own handle."""

    def __init__(self, name, command, log, environment):
        self.name, self.log = name, log
        # Nothing of the caller's settings reaches the system under test.
        clean = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                command,
                env={**clean, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def check_alive(self):
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended with status {self.child.returncode}:\n{self.last_lines()}")

    def last_lines(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def end(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(END_LIMIT_SECS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(END_LIMIT_SECS)


class System:
    def __init__(self, programs):
        programs = Path(programs or Path(os.environ.get("CARGO_TARGET_DIR", promql.FOLDER.parent / "target")) / "debug")
        self.gridtokenx, self.localnet = programs / "gridtokenx", programs / "gridtokenx-localnet"
        for program in (self.gridtokenx, self.localnet):
            if not program.exists():
                raise Failure(f"{program} is missing: build it with `cargo build --locked --features localnet`")
        self.folder = Path(tempfile.mkdtemp(prefix="gridtokenx-dashboards-"))
        # As root the database runs as another user, who must come as far as its directory.
        self.folder.chmod(0o755)
        self.data = self.folder / "data"
        self.processes = {}
        self.chain_address = f"127.0.0.1:{self.neighbouring_ports()}"
        self.main, self.replica, self.prometheus = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.secret = secrets.token_hex(32)
        self.tokens = {}

    @staticmethod
    def neighbouring_ports():
        """The chain's pubsub is on the port after its own."""
        for _ in range(50):
            port = free_port()
            try:
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port + 1))
                    return port
            except OSError:
                continue
        raise Failure("no two free neighbouring ports on 127.0.0.1")

    # --- Processes ---

    def spawn(self, name, command, **environment):
        process = Process(name, [str(part) for part in command], self.folder / f"{name}.log", environment)
        self.processes[name] = process
        return process

    def end(self, name):
        self.processes.pop(name).end()

    def start_chain(self, address=None):
        """At its own address, or at another one while something else answers there."""
        address = address or self.chain_address
        chain = self.spawn("chain", [self.localnet, "--rpc-addr", address, "--data-dir", self.folder / "chain", "--slot-ms", "100"])

        def answers():
            chain.check_alive()
            try:
                return self.ask_chain("getHealth", address=address) == "ok"
            except OSError:
                return None

        wait_for("the local chain answers", answers)

    def settings(self, address):
        return {
            "SOLANA_RPC_URL": f"http://{self.chain_address}",
            "GRIDTOKENX_DATA_DIR": str(self.data),
            "HTTP_ADDR": address,
            "JWT_SECRET": self.secret,
            "TOKENIZATION_POLLING_INTERVAL_SECS": "1",
            "API_RATE_LIMIT": "1000000",
            "CANARY_ENABLED": "true",
            "LOG_LEVEL": "warn",
        }

    def start_main(self):
        main = self.spawn("main", [self.gridtokenx, "run", "--no-play"], **self.settings(self.main))
        self.until_ready(main, self.main)
        file = self.data / "running.json"
        wait_for("the running system writes down its addresses", file.exists)
        running = json.loads(file.read_text())
        self.database_url, self.mint = running["database_url"], running["mint_address"]
        self.database = urllib.parse.urlsplit(self.database_url).path.lstrip("/")

    def start_replica(self):
        replica = self.spawn(
            "replica",
            [self.gridtokenx, "serve"],
            DATABASE_URL=self.database_url,
            SOLANA_MINT_ADDRESS=self.mint,
            **self.settings(self.replica),
        )
        self.until_ready(replica, self.replica)

    def until_ready(self, process, address):
        def is_ready():
            process.check_alive()
            try:
                return self.call("GET", "/health/ready", address=address)[0] == 200
            except OSError:
                return None

        wait_for(f"{process.name} is ready", is_ready)

    def start_prometheus(self):
        for name in {name for _, _, name in promql.rules()}:
            (self.folder / name).write_text(promql.hastened((promql.RULES / name).read_text()))
        (self.folder / "prometheus.yml").write_text(
            "global:\n"
            "  scrape_interval: 1s\n"
            "  scrape_timeout: 1s\n"
            "  evaluation_interval: 1s\n"
            f"  external_labels: {{grafana_url: '{GRAFANA}'}}\n"
            "rule_files: [recording.yml, alerts.yml]\n"
            "scrape_configs:\n"
            f"  - job_name: {JOB}\n"
            f"    static_configs: [{{targets: ['{self.main}', '{self.replica}']}}]\n"
        )
        prometheus = self.spawn(
            "prometheus",
            [
                "prometheus",
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'tsdb'}",
                f"--web.listen-address={self.prometheus}",
                "--log.level=warn",
            ],
        )

        def answers():
            prometheus.check_alive()
            try:
                with urllib.request.urlopen(f"http://{self.prometheus}/-/ready", timeout=2):
                    return True
            except OSError:
                return None

        wait_for("Prometheus is ready", answers)

    def start_listeners(self):
        """Two of the program's own listeners, at different processes of the service."""
        self.spawn("listener", [self.gridtokenx, "listen"], GRIDTOKENX_DATA_DIR=str(self.data), JWT_SECRET=self.secret)

    def close(self):
        """In the order in which they need each other."""
        for name in ("listener", "prometheus", "replica", "main", "chain"):
            if name in self.processes:
                self.end(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Requests and answers ---

    def token(self, role):
        if role not in self.tokens:
            done = subprocess.run(
                [self.gridtokenx, "token", "--role", role, "--sub", f"check-{role}"],
                env={"GRIDTOKENX_DATA_DIR": str(self.data), "JWT_SECRET": self.secret, "PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                timeout=30,
                check=True,
            )
            self.tokens[role] = done.stdout.strip()
        return self.tokens[role]

    def call(self, method, path, body=None, role=None, address=None):
        """Status and document of an API call; OSError when the connection fails."""
        headers = {"content-type": "application/json"}
        if role:
            headers["authorization"] = f"Bearer {self.token(role)}"
        request = urllib.request.Request(
            f"http://{address or self.main}{path}",
            None if body is None else json.dumps(body).encode(),
            headers,
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_LIMIT_SECS) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as refusal:
            return refusal.code, None

    def ask_chain(self, method, *parameters, address=None):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
        request = urllib.request.Request(f"http://{address or self.chain_address}", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=REQUEST_LIMIT_SECS) as answer:
            answer = json.load(answer)
        if "error" in answer:
            raise Failure(f"the chain refuses {method}: {answer['error']}")
        return answer["result"]

    def audit(self):
        """Whether ledger and chain agree; the verdict is recorded."""
        done = subprocess.run(
            [self.gridtokenx, "audit", "--record"],
            env={"GRIDTOKENX_DATA_DIR": str(self.data), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode not in (0, 1):
            raise Failure(f"the audit ended with status {done.returncode}: {done.stderr}")
        return done.returncode == 0

    def sql(self, statement, database=None):
        """The rows of a statement, as lists of texts; in another database than the service's if one is named."""
        psql = shutil.which("psql") or next(iter(sorted(glob("/usr/lib/postgresql/*/bin/psql"), reverse=True)), None)
        if not psql:
            raise Failure('psql is missing: install the package "postgresql-client"')
        url = urllib.parse.urlsplit(self.database_url)._replace(query="")
        url = (url._replace(path=f"/{database}") if database else url).geturl()
        done = subprocess.run(
            [psql, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--dbname", url, "--command", statement],
            capture_output=True,
            text=True,
            timeout=30,
        )
        if done.returncode != 0:
            raise Failure(f"{statement}\n{done.stderr}")
        return [line.split("|") for line in done.stdout.splitlines() if line]

    def ask_prometheus(self, path, **parameters):
        url = f"http://{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_LIMIT_SECS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            raise Failure(f"Prometheus refuses {parameters}: {refusal.read().decode(errors='replace')}") from None

    def query(self, expression):
        """The samples that are numbers; NaN is left out."""
        result = self.ask_prometheus("query", query=expression)
        if result["resultType"] == "scalar":
            return [{"metric": {}, "value": result["result"]}]
        return [sample for sample in result["result"] if sample["value"][1] not in ("NaN", "+Inf", "-Inf")]

    def active_alerts(self):
        """Names by state: pending, firing. Their links are whole addresses."""
        found = {"pending": set(), "firing": set()}
        for alert in self.ask_prometheus("alerts")["alerts"]:
            for link in ("runbook_url", "dashboard_url"):
                if not alert["annotations"][link].startswith(f"{GRAFANA}/d/gridtokenx-"):
                    raise Failure(f"{alert['labels']['alertname']}: {link} is {alert['annotations'][link]}")
            if alert["state"] in found:
                found[alert["state"]].add(alert["labels"]["alertname"])
        return found


class Load:
    """Readings of many meters through the REST API of both processes, at a steady pace, until stopped. It can be paused."""

    READINGS_PER_CALL = 10

    def __init__(self, system, meters):
        self.system, self.meters = system, meters
        self.next_interval = {meter: 0 for meter in meters}
        self.midnight = int(time.time()) // 86400 * 86400
        self.running, self.stopped = threading.Event(), threading.Event()
        self.error = None
        self.one_at_a_time = threading.Lock()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def submission(self, meter):
        """Of a quarter of an hour that was not reported yet, newest first."""
        back = self.next_interval[meter]
        self.next_interval[meter] += 1
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.midnight - 900 * back))
        return {"meter_id": meter, "kwh_amount": "0.25", "reading_timestamp": end}

    def send(self, count, address=None):
        """That many readings at once, spread over the meters."""
        with self.one_at_a_time:
            readings = [self.submission(self.meters[number % len(self.meters)]) for number in range(count)]
        status, answer = self.system.call("POST", "/api/meters/submit-readings", {"readings": readings}, "user", address)
        if status != 200 or answer["accepted"] != count:
            raise Failure(f"{count} readings were sent: status {status}, {answer}")

    def work(self):
        number = 0
        while not self.stopped.is_set():
            if not self.running.wait(timeout=0.2):
                continue
            try:
                address = (self.system.main, self.system.replica)[number % 2]
                with self.one_at_a_time:
                    self.meters.append(self.meters.pop(0))
                self.send(self.READINGS_PER_CALL, address)
                if number % 10 == 0:
                    # What clients do wrong, and what they read.
                    self.system.call("POST", "/api/meters/submit-reading", {"meter_id": self.meters[0], "kwh_amount": "-1", "reading_timestamp": "2026-01-01T00:00:00Z"}, "user", address)
                    self.system.call("GET", "/api/readings?limit=5", role="user", address=address)
            except (OSError, Failure) as error:
                self.error = error
            number += 1
            time.sleep(0.25)

    def start(self):
        self.thread.start()
        self.running.set()

    def pause(self):
        self.running.clear()
        # A call that is under way ends.
        time.sleep(0.5)

    def go_on(self):
        self.error = None
        self.running.set()

    def stop(self):
        self.stopped.set()
        self.thread.join(REQUEST_LIMIT_SECS)
