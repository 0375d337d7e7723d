"""dashboards/check: see dashboards/README.md."""

import argparse
import signal
import sys
import time

from . import live, static
from .failure import Failure


# It takes four to five minutes on two busy cores.
LIMIT_SECS = 900


def out_of_time(*_):
    raise Failure(f"not done within {LIMIT_SECS} s")


def main():
    options = argparse.ArgumentParser(prog="dashboards/check", description="Checks dashboards and alert rules.")
    options.add_argument("--static", action="store_true", help="only what needs no running system")
    options.add_argument("--keep", action="store_true", help="leave everything running afterwards until Ctrl-C")
    options.add_argument("--render", metavar="DIR", help="also draw every panel with its data into this directory")
    options.add_argument("--python", default=sys.executable, help="the Python that has matplotlib, for --render")
    options.add_argument("--programs", metavar="DIR", help="where gridtokenx and gridtokenx-localnet are (default: target/debug)")
    arguments = options.parse_args()
    began = time.monotonic()
    # Whatever ends this, what it started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGALRM, out_of_time)
    if not arguments.keep:
        signal.alarm(LIMIT_SECS)
    try:
        static.check()
        if not arguments.static:
            live.check(arguments)
    except Failure as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        sys.exit(1)
    print(f"Dashboards and rules hold ({time.monotonic() - began:.0f} s).")


main()
