"""Faults that are switched on and off, each with the alerts that it raises. The first line of each is what it shows."""

import base64
import os
import socket
import time

from .failure import Failure
from .keys import new_wallet
from .rpc_gate import RpcGate
from .system import wait_for

# In a close frame (RFC 6455, section 5.5.1).
CLOSE_UNAUTHORIZED = (4401).to_bytes(2, "big")
RESOLVER_LOCK = "classid = 1735680885 AND objid = 1"  # src/db/leader_lock.rs


def register_meter(system, name, wallet):
    status, _ = system.call("POST", "/api/meters", {"meter_id": name, "wallet_address": wallet}, "user")
    if status != 201:
        raise Failure(f"the meter {name} could not be registered: status {status}")


def register_meters(system, count):
    names = [f"check-{number}" for number in range(count)]
    for name in names:
        register_meter(system, name, new_wallet()[1])
    return names


def count(system, where):
    return int(system.sql(f"SELECT count(*) FROM readings WHERE {where}")[0][0])


def until_minted(system):
    wait_for("all readings are minted", lambda: count(system, "state IN ('pending', 'submitted')") == 0, limit=60)


def minting_off(system, watch, load):
    """auto-mint off with readings coming in raises nothing, on again neither"""
    system.sql("UPDATE settings SET auto_mint_enabled = FALSE, changed_at = now()")
    wait_for("readings are held", lambda: watch.system.query("gridtokenx_held_readings_count > 100"))
    # As if minting had been off since yesterday.
    system.sql("UPDATE readings SET accepted_at = accepted_at - INTERVAL '1 day' WHERE state = 'pending'")
    watch.expect_none("minting is off", 8)
    # The alert waits 5 minutes for them to be minted; its hastened 5 seconds would be a race with this machine.
    system.sql("UPDATE readings SET accepted_at = now() WHERE state = 'pending'")
    system.sql("UPDATE settings SET auto_mint_enabled = TRUE, changed_at = now()")
    wait_for("nothing is held", lambda: watch.system.query("gridtokenx_held_readings_count == 0"))
    watch.expect_none("minting is on again", 4)


def refused_reading(system, watch, load):
    """a wallet whose token account is gone raises TokenMintingFailures alone"""
    key, wallet = new_wallet()
    register_meter(system, "check-refused", wallet)
    # The service takes this wallet for one that was paid before; so its owner must have closed the account.
    system.sql(f"INSERT INTO token_accounts (wallet) VALUES ('\\x{key.hex()}')")
    load.next_interval["check-refused"] = 0
    status, _ = system.call("POST", "/api/meters/submit-reading", load.submission("check-refused"), "user")
    if status != 200:
        raise Failure(f"the reading was not accepted: status {status}")
    watch.expect("a refused reading", ["TokenMintingFailures"])
    watch.look_at_panels()
    watch.until_quiet("a refused reading")


def bad_websockets(system, watch, load):
    """WebSocket clients without a valid token raise WebSocketConnectionIssues alone"""
    for _ in range(12):
        websocket_with_bad_token(system)
    watch.expect("bad WebSocket clients", ["WebSocketConnectionIssues"])
    watch.look_at_panels()
    watch.until_quiet("bad WebSocket clients")


def websocket_with_bad_token(system):
    """Sends a first message that is not a token, and waits until it is closed."""
    host, port = system.main.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {system.main}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        message = b'{"type":"auth","token":"nobody"}'
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(message))
        connection.sendall(bytes([0x81, 0x80 | len(message)]) + mask + masked)
        received = b""
        # The server waits for the client's own close frame for a while; what it says first is the end of it for us.
        while CLOSE_UNAUTHORIZED not in received:
            part = connection.recv(4096)
            if not part:
                break
            received += part


def empty_fee_payer(system, watch, load):
    """an empty fee payer raises FeePayerRunwayLow alone"""
    load.pause()
    until_minted(system)
    payer = system.sql("SELECT fee_payer FROM ledger")[0][0]
    before = system.ask_chain("getBalance", payer)["value"]
    system.ask_chain("surfnet_setAccount", payer, {"lamports": 900_000})
    watch.expect("an empty fee payer", ["FeePayerRunwayLow"])
    watch.look_at_panels()
    system.ask_chain("surfnet_setAccount", payer, {"lamports": before})
    watch.until_quiet("an empty fee payer")
    load.go_on()


def silent_canary(system, watch, load):
    """a canary that is minted no more raises CanarySilent alone"""
    load.pause()
    until_minted(system)
    canarys = "FROM meters WHERE meters.id = readings.meter AND meters.owner = 'gridtokenx-canary'"
    # As if all this had happened earlier; its next reading, within a minute, ends it.
    system.sql("UPDATE settings SET changed_at = changed_at - INTERVAL '10 minutes'")
    system.sql(f"UPDATE readings SET accepted_at = accepted_at - INTERVAL '10 minutes' {canarys}")
    watch.expect("a silent canary", ["CanarySilent"])
    watch.look_at_panels()
    watch.until_quiet("a silent canary")
    # The first reading that a process times only makes the series; the one after it, a minute later, gives it a rate.
    wait_for("a canary reading is timed", lambda: watch.system.query("increase(gridtokenx_canary_duration_seconds_count[10m]) > 0"), limit=150)
    watch.look_at_panels()
    load.go_on()


def lost_process(system, watch, load):
    """one process of two gone raises InstanceDown alone"""
    load.pause()
    system.end("replica")
    watch.expect("a lost process", ["InstanceDown"])
    watch.look_at_panels()
    system.start_replica()
    watch.until_quiet("a lost process")
    load.go_on()


def stopped_sweeps(system, watch, load):
    """sweeps that no process runs raise SweepNotRunning alone"""
    system.sql(
        "CREATE FUNCTION no_sweep() RETURNS TRIGGER LANGUAGE plpgsql AS "
        "$$BEGIN IF NEW.job_type = 'SweepUnminted' THEN RETURN NULL; END IF; RETURN NEW; END$$"
    )
    system.sql("CREATE TRIGGER no_sweep BEFORE INSERT ON apalis.jobs FOR EACH ROW EXECUTE FUNCTION no_sweep()")
    watch.expect("no sweeps", ["SweepNotRunning"])
    watch.look_at_panels()
    system.sql("DROP TRIGGER no_sweep ON apalis.jobs")
    system.sql("DROP FUNCTION no_sweep()")
    watch.until_quiet("no sweeps")


SLOW_MINTING = ["MintedInTimeBudgetBurnFast", "HighUnmintedReadingsBacklog", "OldestUnmintedReadingTooOld"]


def stopped_chain(system, watch, load):
    """a stopped chain raises the alerts of waiting readings, and those of failing requests only when requests fail"""
    load.pause()
    until_minted(system)
    system.end("chain")
    for _ in range(3):
        load.send(500)
    # As if the chain had been away for an hour.
    system.sql("UPDATE readings SET accepted_at = accepted_at - INTERVAL '1 hour' WHERE state IN ('pending', 'submitted')")
    system.sql("UPDATE settings SET changed_at = now() - INTERVAL '1 day'")
    watch.expect("a stopped chain", SLOW_MINTING, tolerated=["MintedInTimeBudgetBurnSlow"])
    watch.look_at_panels()

    def ask_for_what_needs_the_chain():
        status, _ = system.call("POST", "/api/meters", {"meter_id": "check-late", "wallet_address": new_wallet()[1]}, "user")
        if status != 503:
            raise Failure(f"a meter was registered without a chain: status {status}")

    watch.expect(
        "a stopped chain, and requests that need it",
        [*SLOW_MINTING, "HighErrorRate", "ApiAvailabilityBudgetBurnFast", "MintedInTimeBudgetBurnSlow", "ApiAvailabilityBudgetBurnSlow"],
        meanwhile=ask_for_what_needs_the_chain,
    )
    watch.look_at_panels()
    system.start_chain()
    until_minted(system)
    load.go_on()
    watch.until_quiet("a stopped chain")


def no_blocks(system, watch, load):
    """endpoints that show no blocks raise NoEndpointProvesDeaths alone, and without history HistoryScanStale too"""
    load.pause()
    until_minted(system)
    inner = f"127.0.0.1:{system.neighbouring_ports()}"
    # What an endpoint can do is probed again once it was away.
    system.end("chain")
    wait_for("both processes see that the chain is away", lambda: breakers_open(system) == [1, 1])
    system.start_chain(inner)
    off = ["getBlock"]
    gate = RpcGate(system.chain_address, inner, off)
    try:
        watch.expect("no blocks", ["NoEndpointProvesDeaths"])
        watch.look_at_panels()
        off.append("getSignaturesForAddress")
        # As if the last scan that was not refused were older; each minute one begins.
        system.sql("UPDATE history_scan SET known_as_of = known_as_of - INTERVAL '1 hour'")
        watch.expect("no blocks, and no history", ["NoEndpointProvesDeaths", "HistoryScanStale"])
        watch.look_at_panels()
        system.end("chain")
        wait_for("both processes see that the chain is away", lambda: breakers_open(system) == [1, 1])
    finally:
        gate.close()
    system.start_chain()
    until_minted(system)
    load.go_on()
    watch.until_quiet("no blocks")


def breakers_open(system):
    return [float(sample["value"][1]) for sample in system.query("gridtokenx_chain_breaker_open")]


def unknown_mint(system, watch, load):
    """a landed mint that the ledger holds as dead raises LedgerMismatch alone"""
    load.pause()
    until_minted(system)
    number = system.sql("SELECT max(number) FROM mint_transactions WHERE state = 'finalized'")[0][0]
    system.sql(f"UPDATE mint_transactions SET state = 'dead' WHERE number = {number}")
    system.sql(f"UPDATE ledger SET watermark_slot = (SELECT slot - 1 FROM mint_transactions WHERE number = {number})")
    # The next leader of the resolver scans the authority's history at once.
    system.sql(f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND {RESOLVER_LOCK} AND granted")
    watch.expect("an unknown mint", ["LedgerMismatch"])
    watch.look_at_panels()
    system.sql(f"UPDATE mint_transactions SET state = 'finalized' WHERE number = {number}")
    system.sql("DELETE FROM foreign_mints")
    watch.until_quiet("an unknown mint")
    load.go_on()


def failed_audit(system, watch, load):
    """a changed row of the ledger raises AuditFailed alone, once it was audited"""
    load.pause()
    until_minted(system)
    wait_for("everything is finalized", lambda: count(system, "state = 'minted'") == 0, limit=60)
    system.sql("CREATE TABLE changed AS SELECT id, kwh FROM readings WHERE state = 'finalized' LIMIT 1")
    system.sql("UPDATE readings SET kwh = kwh * 2 WHERE id = (SELECT id FROM changed)")
    if system.audit():
        raise Failure("the audit holds although a reading was changed")
    watch.expect("a changed row", ["AuditFailed"])
    watch.look_at_panels()
    system.sql("UPDATE readings SET kwh = changed.kwh FROM changed WHERE changed.id = readings.id")
    system.sql("DROP TABLE changed")
    if not system.audit():
        raise Failure("the audit does not hold although the row is what it was")
    watch.until_quiet("a changed row")
    load.go_on()


def no_audits(system, watch, load):
    """audits that do not run raise AuditStale alone"""
    system.sql("UPDATE recorded_audits SET finished_at = finished_at - INTERVAL '27 hours'")
    watch.expect("no audits", ["AuditStale"])
    watch.look_at_panels()
    system.audit()
    watch.until_quiet("no audits")


def lost_database(system, watch, load):
    """a database that refuses all connections raises DatabaseUnreachable, and SweepNotRunning since nothing is swept"""
    load.pause()
    until_minted(system)
    system.sql(f"ALTER DATABASE {system.database} ALLOW_CONNECTIONS FALSE", database="postgres")
    try:
        system.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{system.database}'", database="postgres")
        # The listener is cut off and cannot reconnect.
        watch.expect(
            "a lost database",
            ["DatabaseUnreachable", "SweepNotRunning"],
            tolerated=["HighErrorRate", "WebSocketConnectionIssues", "ApiAvailabilityBudgetBurnFast", "ApiAvailabilityBudgetBurnSlow"],
        )
        watch.look_at_panels()
    finally:
        system.sql(f"ALTER DATABASE {system.database} ALLOW_CONNECTIONS TRUE", database="postgres")
    watch.until_quiet("a lost database")
    load.go_on()


ALL = [
    minting_off,
    refused_reading,
    bad_websockets,
    empty_fee_payer,
    silent_canary,
    lost_process,
    stopped_sweeps,
    failed_audit,
    no_audits,
    lost_database,
    stopped_chain,
    no_blocks,
    unknown_mint,
]
