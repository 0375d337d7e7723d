"""What can be said about dashboards and rules without a running system."""

import re
import subprocess
import sys

from ..boards.runbooks import anchor, number, sections
from . import promql
from .failure import Failure


def check():
    generated()
    panels()
    alerts()
    promtool()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def generated():
    run(sys.executable, "-B", str(promql.FOLDER / "generate.py"), "--check")
    print("The dashboards are what dashboards/generate.py writes.")


def panels():
    numbers = {board["uid"]: {str(panel["id"]) for panel in board["panels"]} for board in promql.dashboards()}
    count = 0
    for board in promql.dashboards():
        for panel in board["panels"]:
            name = f"{board['title']}: {panel['title']}"
            if panel["type"] == "row":
                continue
            count += 1
            if not panel["description"]:
                raise Failure(f"{name} has no description")
            if panel["type"] != "text" and not panel["fieldConfig"]["defaults"]["unit"]:
                raise Failure(f"{name} has no unit")
            if not panel["links"] and board["uid"] != "gridtokenx-runbooks":
                raise Failure(f"{name} has no link: where does one go on from there?")
            for link in panel["links"]:
                there = re.match(r"/d/([a-z-]+)\?(?:viewPanel=(\d+)$)?", link["url"])
                if not there or there.group(1) not in numbers:
                    raise Failure(f"{name} links to {link['url']}, which is not one of our dashboards")
                if there.group(1) == board["uid"]:
                    raise Failure(f"{name} links to the dashboard that it is on")
                if there.group(2) and there.group(2) not in numbers[there.group(1)]:
                    raise Failure(f"{name} links to {link['url']}, which is not a panel of that dashboard")
            for target in panel.get("targets", []):
                for shared in re.findall(r"\bsum [^(]*\((gridtokenx_\w+)", target["expr"]):
                    if shared in from_the_database():
                        raise Failure(f"{name} adds up {shared}, which is the same on each replica")
    print(f"{count} panels have a description, a unit and links that lead on.")


def from_the_database():
    """Metrics whose help text says that they are the same on each replica."""
    names = (promql.FOLDER.parent / "src/telemetry/names.rs").read_text()
    constants = dict(re.findall(r'pub const (\w+): &str =\s*"(gridtokenx_\w+)"', names))
    return {constants[name] for name in re.findall(r'\w+\((\w+),[^\n]*\(from the database\)', names)}


GRAFANA = "{{ $externalLabels.grafana_url }}"


def alerts():
    text = (promql.RULES / "alerts.yml").read_text()
    tests = "".join(path.read_text() for path in promql.RULES.glob("*_test.yml"))
    without_alert = {title for title, _ in sections()[1:]}
    for alert in re.split(r"^      - alert: ", text, flags=re.MULTILINE)[1:]:
        name = alert.split("\n", 1)[0]
        if not re.search(r"severity: (critical|warning)\b", alert):
            raise Failure(f"alert {name} has no severity")
        summary = re.search(r"summary: (.+)", alert)
        if not summary or ("$value" not in summary.group(1) and "No instance" not in summary.group(1)):
            raise Failure(f"alert {name} has no summary with its value")
        without_alert.discard(links(name, alert))
        if f"alertname: {name}\n" not in tests:
            raise Failure(f"alert {name} has no test that it fires")
    if without_alert:
        raise Failure(f"docs/runbooks.md has sections for which there is no alert: {', '.join(sorted(without_alert))}")
    if not re.search(r"^  external_labels:\n(?:    .*\n)*?    grafana_url: https?://\S+[^/\s]\n", (promql.RULES / "prometheus.yml").read_text(), re.MULTILINE):
        raise Failure("prometheus.yml has no external label grafana_url, an address without a slash at the end: the alerts' links begin with it")
    print("Every alert has a severity, a summary with its value, links to its runbook section and to a dashboard, and a test.")


def links(name, alert):
    """Whole addresses: a notification has no page that a path could belong to. The section is the one that bears the alert's
    name, or the beginning of it. Returns its title."""
    section = next((title for title, _ in sections() if name.lower().startswith(anchor(title))), None)
    if not section:
        raise Failure(f"alert {name} has no section in docs/runbooks.md")
    wanted = f"runbook_url: '{GRAFANA}/d/gridtokenx-runbooks?viewPanel={number(section)}'\n"
    if wanted not in alert:
        raise Failure(f"alert {name} does not link to its section of docs/runbooks.md, which would be\n  {wanted}")
    board = re.search(r"^ +dashboard_url: '(.*)/d/([a-z-]+)(.*)'$", alert, re.MULTILINE)
    if not board or board.group(1) != GRAFANA or board.group(3) != "?var-job={{ $labels.job | urlquery }}":
        raise Failure(f"alert {name}: its dashboard_url is not '{GRAFANA}/d/…?var-job={{{{ $labels.job | urlquery }}}}'")
    if board.group(2) not in {board["uid"] for board in promql.dashboards()}:
        raise Failure(f"alert {name} links to {board.group(2)}, which is not one of our dashboards")
    return section


def promtool():
    files = sorted(promql.RULES.glob("*.yml"))
    tests = [str(path) for path in files if path.name.endswith("_test.yml")]
    rules = [str(path) for path in files if path.name in {name for _, _, name in promql.rules()}]
    run("promtool", "check", "rules", *rules)
    run("promtool", "test", "rules", *tests)
    run("promtool", "check", "config", "--syntax-only", str(promql.RULES / "prometheus.yml"))
    print(f"promtool: {len(promql.rules())} rules, and their tests in {len(tests)} files.")
