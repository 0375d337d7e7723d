#!/usr/bin/env python3
"""Checks a play against its data file and the chain, without the product and without its database.

    scripts/check_play.py REPORT.json [--token TOKEN]

REPORT.json is what `make run ARGS="--report REPORT.json"` wrote; the system still runs. What must have been paid is computed
from the data file in exact decimals, each reading rounded down to base units. What was paid is queried from the chain over
JSON-RPC. With a token of the meters' owner (`make -s token ROLE=user`) each wallet's balance is compared too; which
wallet belongs to which meter is the only thing that the script queries from the service.

Exit status: 0 when everything agrees, 1 when something differs, 2 when the check could not be made.
"""

import argparse
import csv
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from decimal import Context, Decimal, Inexact, ROUND_FLOOR
from pathlib import Path

DATA_FILE = Path(__file__).parent.parent / "data" / "ausgrid_customer_12_2011-2012.csv"
CALL_LIMIT_SECS = 30
METERS_PER_PAGE = 1000
# A product that does not fit is an error, never rounded.
EXACT = Context(prec=60, traps=[Inexact])


def fetch(url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_SECS) as answer:
        return json.load(answer)


def call_chain(rpc_url, method, *parameters):
    answer = fetch(rpc_url, {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
    if "error" in answer:
        raise ValueError(f"{method}: {answer['error']['message']}")
    return answer["result"]["value"]


def owed_by_meter(day, ratio, decimals):
    """Base units that each meter of the play has earned, from the data file alone."""
    base_units_per_kwh = EXACT.multiply(ratio, Decimal(10) ** decimals)
    owed = defaultdict(int)
    with DATA_FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            date = row["interval_start_local"].split(" ")[0]
            kwh = Decimal(row["generation_kwh"])
            if kwh > 0 and day in ("fleet", date):
                exact = EXACT.multiply(kwh, base_units_per_kwh)
                owed[f"ausgrid-12-{date}"] += int(exact.to_integral_value(rounding=ROUND_FLOOR))
    return owed


def wallets_by_meter(api_url, token):
    wallets, after = {}, None
    while True:
        query = {"limit": METERS_PER_PAGE} | ({"after": after} if after else {})
        url = f"{api_url}/api/meters?{urllib.parse.urlencode(query)}"
        page = fetch(url, headers={"authorization": f"Bearer {token}"})
        wallets |= {meter["meter_id"]: meter["wallet_address"] for meter in page["meters"]}
        after = page["next"]
        if after is None:
            return wallets


def balance(rpc_url, wallet, mint):
    """Base units of this mint in all token accounts of the wallet."""
    accounts = call_chain(
        rpc_url,
        "getTokenAccountsByOwner",
        wallet,
        {"mint": mint},
        {"encoding": "jsonParsed", "commitment": "finalized"},
    )
    amounts = [account["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"] for account in accounts]
    return sum(map(int, amounts))


def compare(what, expected, found):
    verdict = "agrees" if expected == found else "DIFFERS"
    print(f"{verdict:8} {what}: data file {expected}, chain {found} base units")
    return expected == found


def compare_wallets(rpc_url, mint, owed, wallets):
    unknown = sorted(owed.keys() - wallets.keys())
    if unknown:
        print(f"DIFFERS  {len(unknown)} meters of the data file are not registered, the first is {unknown[0]}")
    owed_to = defaultdict(int)
    for meter, base_units in owed.items():
        if meter in wallets:
            owed_to[wallets[meter]] += base_units
    wrong = 0
    for wallet, base_units in sorted(owed_to.items()):
        found = balance(rpc_url, wallet, mint)
        if found != base_units:
            wrong += 1
            compare(f"wallet {wallet}", base_units, found)
    print(f"{'DIFFERS' if wrong else 'agrees':8} balances: {len(owed_to) - wrong} of {len(owed_to)} wallets hold what their meter earned")
    return not unknown and not wrong


def check(report, token):
    rpc_url = report["rpc_url"].split(",")[0]
    mint = report["mint_address"]
    supply = call_chain(rpc_url, "getTokenSupply", mint, {"commitment": "finalized"})
    owed = owed_by_meter(report["day"], Decimal(report["ratio"]), supply["decimals"])
    agrees = compare("supply", sum(owed.values()), int(supply["amount"]))
    if token is None:
        print("skipped  balances: give --token to compare each wallet too")
        return agrees
    return compare_wallets(rpc_url, mint, owed, wallets_by_meter(report["api_url"], token)) and agrees


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("report", type=Path, metavar="REPORT.json")
    arguments.add_argument("--token", help="of the meters' owner: make -s token ROLE=user")
    given = arguments.parse_args()
    try:
        report = json.loads(given.report.read_text(), parse_float=Decimal, parse_int=Decimal)
        agrees = check(report, given.token)
    except (OSError, ValueError, KeyError, Inexact) as error:
        print(f"check_play: not checked: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
