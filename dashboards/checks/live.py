"""Dashboards and rules on a running system: a real Prometheus scrapes two processes under load, and faults are switched on
and off. Every query of every panel and rule is asked; each fault raises its alerts and no other.
"""

import subprocess
import sys
import time

from . import faults, promql
from .failure import Failure
from .system import JOB, Load, System, wait_for

METERS = 20
# How long the healthy system is watched before its panels are checked: longer than the longest hastened `for:`.
WARM_UP_SECS = 16
FIRE_LIMIT_SECS = 75
END_LIMIT_SECS = 100
LOOKS_PENDING = 4
# A scrape that is late on a busy machine ends an alert for a second or two.
QUIET_SECS = 3

# Queries that no healthy system answers, and that none of the faults below makes it answer.
SILENT = {}


class Watch:
    """What was seen: queries with data, alerts that fired."""

    def __init__(self, system):
        self.system, self.began = system, time.time()
        self.unseen = {(board["uid"], title, expression) for board in promql.dashboards() for title, expression in promql.targets(board)}
        self.asked = len(self.unseen)
        self.fired = set()
        self.pending_looks = {}

    def look_at_panels(self):
        """Asks every query that has not answered yet. One that does not parse fails at once."""
        seconds = max(30, round(time.time() - self.began))
        for query in sorted(self.unseen):
            if self.system.query(promql.filled_in(query[2], JOB, seconds)):
                self.unseen.discard(query)

    def others(self, active, allowed=()):
        """Unexpected alerts: firing, or pending in several polls in a row. One slow scrape on a busy machine makes an alert
        pending for a moment, and no more."""
        self.pending_looks = {name: self.pending_looks.get(name, 0) + 1 for name in active["pending"]}
        lasting = {name for name, looks in self.pending_looks.items() if looks >= LOOKS_PENDING}
        return (active["firing"] | lasting) - set(allowed)

    def expect(self, fault, alerts, tolerated=(), meanwhile=lambda: None):
        """Waits until exactly these alerts fire. `tolerated` ones may be pending or firing too: they see the same fault more
        slowly. `meanwhile` is done between two looks."""
        end = time.monotonic() + FIRE_LIMIT_SECS
        while True:
            active = self.system.active_alerts()
            self.fired |= active["firing"]
            others = self.others(active, [*alerts, *tolerated])
            if others:
                raise Failure(f"{fault}: {', '.join(sorted(others))} came too")
            if set(alerts) <= active["firing"]:
                return
            if time.monotonic() > end:
                missing = set(alerts) - active["firing"]
                raise Failure(f"{fault}: {', '.join(sorted(missing))} did not fire within {FIRE_LIMIT_SECS} s")
            meanwhile()
            time.sleep(0.5)

    def expect_none(self, what, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            others = self.others(self.system.active_alerts())
            if others:
                raise Failure(f"{what}: {', '.join(sorted(others))} came")
            time.sleep(0.5)

    def until_quiet(self, what):
        quiet_since = None

        def is_quiet():
            nonlocal quiet_since
            active = self.system.active_alerts()
            self.fired |= active["firing"]
            if active["firing"] or active["pending"]:
                quiet_since = None
                return False
            quiet_since = quiet_since or time.monotonic()
            return time.monotonic() - quiet_since >= QUIET_SECS

        wait_for(f"all alerts end after: {what}", is_quiet, END_LIMIT_SECS)


def check(arguments):
    system = System(arguments.programs)
    load = None
    try:
        system.start_chain()
        system.start_main()
        system.start_replica()
        system.start_prometheus()
        system.start_listeners()
        load = Load(system, faults.register_meters(system, METERS))
        load.start()
        watch = Watch(system)
        healthy(system, watch, load)
        for fault in faults.ALL:
            began = time.monotonic()
            fault(system, watch, load)
            print(f"  {fault.__doc__.splitlines()[0]} ({time.monotonic() - began:.0f} s)", flush=True)
        verdict(system, watch)
        if arguments.render:
            render(arguments, system, watch)
        if arguments.keep:
            keep(system)
    except Failure as failure:
        raise Failure(f"{failure}\n{last_words(system)}") from None
    finally:
        if load:
            load.stop()
        system.close()


def healthy(system, watch, load):
    """Data everywhere, alerts nowhere, and both processes report the same figures."""
    watch.expect_none("a healthy system under load", WARM_UP_SECS)
    if load.error:
        raise Failure(f"the load: {load.error}")
    if not system.audit():
        raise Failure("the audit of a healthy system does not hold")
    wait_for("the verdict is seen", lambda: system.query("gridtokenx:audit_differences:max == 0"))
    wait_for("a reading is finalized", lambda: watch.system.query('gridtokenx_mint_transactions_total{outcome="finalized"} > 0'))
    watch.look_at_panels()
    rules_evaluate(system)
    rules_have_data(system)
    every_metric_is_scraped(system)
    replicas_agree(system, load)
    print(f"Under load {watch.asked - len(watch.unseen)} of {watch.asked} panel queries answer; the others need a fault:", flush=True)


def rules(system):
    return [rule for group in system.ask_prometheus("rules")["groups"] for rule in group["rules"]]


def rules_evaluate(system):
    for rule in rules(system):
        if rule["health"] != "ok":
            raise Failure(f"rule {rule['name']}: {rule.get('lastError')}")


def rules_have_data(system):
    """A recording rule records; of an alert, which returns nothing while all is well, each series is asked for."""
    for rule in rules(system):
        selectors = [rule["name"]] if rule["type"] == "recording" else promql.selectors(rule["query"])
        for selector in selectors:
            if not system.query(selector):
                raise Failure(f"rule {rule['name']}: {selector} returns nothing")


def every_metric_is_scraped(system):
    """Names of dashboards and rules against what the running service reports."""
    exist = set(system.ask_prometheus("label/__name__/values"))
    for board in promql.dashboards():
        for title, expression in promql.targets(board):
            for selector in promql.selectors(expression):
                name = selector.partition("{")[0]
                if name not in exist and name != "ALERTS":
                    raise Failure(f"{board['title']}, {title}: there is no {name}")


def replicas_agree(system, load):
    """Figures from the database are the same on both processes once nothing moves."""
    load.pause()
    figures = ("gridtokenx_unminted_readings_count", "gridtokenx_held_readings_count", "gridtokenx_feed_last_seq", "gridtokenx_ledger_breaker_open")

    def agree():
        answers = [{sample["value"][1] for sample in system.query(f"{name}")} for name in figures]
        return all(len(values) == 1 for values in answers) and answers[0] == {"0"}

    wait_for("both processes report the same figures, and nothing is unminted", agree, limit=60)
    load.go_on()


def verdict(system, watch):
    """Everything was seen."""
    silent = {query for query in watch.unseen if (query[0], query[1]) not in SILENT}
    if silent:
        lines = "\n".join(f"  {board}, {title}: {expression}" for board, title, expression in sorted(silent))
        raise Failure(f"these panel queries never returned data:\n{lines}")
    never = {name for kind, name, _ in promql.rules() if kind == "alert"} - watch.fired
    if never:
        raise Failure(f"these alerts never fired: {', '.join(sorted(never))}")
    rules_evaluate(system)
    print(f"All {watch.asked} panel queries returned data; all alerts fired, each for its own fault.")
    for (board, title), reason in SILENT.items():
        print(f"  except {board}, {title}: {reason}")


def last_words(system):
    return "\n".join(f"--- last lines of {process.name}\n{process.last_lines()}" for process in system.processes.values())


def render(arguments, system, watch):
    command = [arguments.python, str(promql.FOLDER / "render.py"), f"http://{system.prometheus}", JOB, arguments.render]
    command += [f"--from={watch.began:.0f}", f"--to={time.time():.0f}"]
    subprocess.run(command, check=True, timeout=600)


def keep(system):
    print(f"API http://{system.main}, Prometheus http://{system.prometheus}, files {system.folder}; Ctrl-C ends everything.", file=sys.stderr)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        pass
