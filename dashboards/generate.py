#!/usr/bin/env python3
"""Writes the Grafana dashboards (dashboards/*.json) from dashboards/boards/ and docs/runbooks.md.

    dashboards/generate.py            writes them
    dashboards/generate.py --check    only says which file is not what would be written; status 1 if any
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
from boards import api, database, feed, mint, overview, queue, runbooks  # noqa: E402

FOLDER = Path(__file__).resolve().parent


def boards():
    book = runbooks.build()
    panels_of_book = {
        panel["description"].partition("#")[2]: panel["id"] for panel in book["panels"] if panel["type"] == "text"
    }
    made = [overview.BOARD, queue.BOARD, mint.BOARD, feed.BOARD, api.BOARD, database.BOARD]
    for board in made:
        for panel in board["panels"]:
            for link in panel.get("links", []):
                scheme, _, section = link["url"].partition(":")
                if scheme == "runbook":
                    # A section that does not exist stops here, with its name.
                    link["url"] = f"/d/gridtokenx-runbooks?viewPanel={panels_of_book[section]}"
    return [*made, book]


def files():
    return {FOLDER / f"{board['uid']}.json": json.dumps(board, indent=2, ensure_ascii=False) + "\n" for board in boards()}


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    wanted = files()
    stray = [path for path in FOLDER.glob("*.json") if path not in wanted]
    different = [path for path, content in wanted.items() if not path.exists() or path.read_text() != content]
    if check:
        for path in (*different, *stray):
            print(f"{path.relative_to(FOLDER.parent)} is not what dashboards/generate.py writes: run it", file=sys.stderr)
        sys.exit(bool(different or stray))
    for path, content in wanted.items():
        path.write_text(content)
    for path in stray:
        path.unlink()


if __name__ == "__main__":
    main()
