#!/usr/bin/env python3
"""Prints how fast a play was stored and minted, as one line of JSON, from its report and the times in the event feed.

    scripts/play_rates.py REPORT.json --token "$(make -s token ROLE=user)"

REPORT.json is what `make run ARGS="--report REPORT.json"` wrote on a fresh data directory; the system still runs. Rates are
readings divided by the seconds from the first `MeterReadingReceived` to the last event of the kind.
"""

import argparse
import json
import urllib.request
from datetime import datetime
from pathlib import Path

CALL_LIMIT_SECS = 30
EVENTS_PER_PAGE = 1000


def events(api_url, token):
    after = 0
    while True:
        url = f"{api_url}/api/events?after={after}&limit={EVENTS_PER_PAGE}"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_SECS) as answer:
            page = json.load(answer)["events"]
        yield from page
        if len(page) < EVENTS_PER_PAGE:
            return
        after = page[-1]["seq"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("report", type=Path, metavar="REPORT.json")
    arguments.add_argument("--token", required=True, help="of the meters' owner: make -s token ROLE=user")
    given = arguments.parse_args()
    report = json.loads(given.report.read_text())

    times = {"MeterReadingReceived": [], "TokensMinted": [], "MintFinalized": []}
    for event in events(report["api_url"], given.token):
        if event["type"] in times:
            times[event["type"]].append(datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")))
    began = min(times["MeterReadingReceived"])
    rates = {kind: round(len(at) / (max(at) - began).total_seconds()) for kind, at in times.items()}
    print(
        json.dumps(
            {
                "stored_per_second": rates["MeterReadingReceived"],
                "minted_per_second": rates["TokensMinted"],
                "finalized_per_second": rates["MintFinalized"],
                "readings_per_transaction": report["readings_per_transaction"],
                "lamports_per_reading": report["lamports_per_reading"],
                "submit_to_minted_ms": report["submit_to_minted_ms"],
            }
        )
    )


if __name__ == "__main__":
    main()
