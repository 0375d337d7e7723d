#!/usr/bin/env python3
"""Checks the feed of a running system with Python's `websockets`, an independent client (`pip install websockets`).

    scripts/check_feed.py http://127.0.0.1:8080 "$(make -s token ROLE=admin)"

It negotiates compression, resumes, pings both ways, sends fragments and a compressed message, opens a stream with a ticket
and one with a subprotocol, and expects the close codes of docs/feed.md for a deflate bomb and a bad token. With
`jsonschema` installed it also validates each message that it receives against docs/feed.schema.json.
"""

import asyncio
import json
import pathlib
import sys
import urllib.error
import urllib.request

import websockets
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

LIMIT_SECS = 20
SCHEMA = pathlib.Path(__file__).parent.parent / "docs" / "feed.schema.json"


def validator():
    """Validator of the service's frames; None without jsonschema."""
    try:
        import jsonschema
    except ImportError:
        return None
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator({**schema, "$ref": "#/$defs/serverFrame"})


VALIDATOR = validator()


async def frame(socket):
    text = await asyncio.wait_for(socket.recv(), LIMIT_SECS)
    document = json.loads(text)
    if VALIDATOR is not None:
        VALIDATOR.validate(document)
    return document


async def closed(socket):
    """Code and reason of the close frame; frames before it are ignored."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), LIMIT_SECS)
    except websockets.ConnectionClosed as end:
        return end.rcvd.code, json.loads(end.rcvd.reason)


def check(what, holds):
    print(("ok      " if holds else "FAILED  ") + what)
    return bool(holds)


async def main(api_url, token):
    ws_url = api_url.replace("http", "ws", 1) + "/ws"
    bearer = {"Authorization": "Bearer " + token}
    good = True

    for name, factory in [
        ("the client's default offer", ClientPerMessageDeflateFactory(compress_settings={"memLevel": 5})),
        (
            "both windows bounded to 12 bits",
            ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=12),
        ),
        (
            "no context in either direction",
            ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
        ),
    ]:
        async with connect(ws_url, additional_headers=bearer, compression=None, extensions=[factory]) as socket:
            agreed = [extension.name for extension in socket.protocol.extensions]
            hello = await frame(socket)
            await socket.send(json.dumps({"type": "resume", "after": 0}))
            events = []
            while len(events) < min(hello["seq"], 2000):
                message = await frame(socket)
                events += message if isinstance(message, list) else [message]
            numbers = [event["seq"] for event in events]
            good &= check(f"{name}: agreed, {len(events)} events replayed in order", agreed == ["permessage-deflate"] and numbers == sorted(set(numbers)))

    async with connect(ws_url, additional_headers=bearer) as socket:
        await frame(socket)
        await socket.send(json.dumps({"type": "subscribe", "meters": ["m" * 60 + str(i) for i in range(400)]}))
        # A message in fragments.
        await socket.send(['{"type":', '"pi', 'ng"}'])
        message = await frame(socket)
        good &= check("fragments, and a long compressed message", message["type"] == "pong")
        await asyncio.wait_for(await socket.ping(), LIMIT_SECS)
        good &= check("a ping is answered", True)

    async with connect(ws_url, additional_headers=bearer) as socket:
        await socket.send(json.dumps({"type": "ping", "x": " " * 30_000_000}))
        code, reason = await closed(socket)
        good &= check(f"a deflate bomb is closed with {code} {reason}", code == 1009)

    request = urllib.request.Request(api_url + "/api/ws/ticket", method="POST", headers=bearer)
    ticket = json.load(urllib.request.urlopen(request))["ticket"]
    async with connect(f"{ws_url}?ticket={ticket}") as socket:
        good &= check("a ticket opens a stream", (await frame(socket))["type"] == "hello")
    try:
        async with connect(f"{ws_url}?ticket={ticket}"):
            good &= check("a ticket is valid once", False)
    except websockets.InvalidStatus as refused:
        good &= check("a ticket is valid once", refused.response.status_code == 401)

    async with connect(ws_url, subprotocols=["gridtokenx", "bearer." + token]) as socket:
        await frame(socket)
        good &= check("a token is accepted beside the name of the protocol", socket.subprotocol == "gridtokenx")

    async with connect(ws_url) as socket:
        await socket.send(json.dumps({"type": "auth", "token": "nonsense"}))
        code, reason = await closed(socket)
        good &= check(f"a bad first message is closed with {code} {reason}", code == 4401)
    return good


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print("websockets", websockets.__version__, "" if VALIDATOR else "(without jsonschema)")
    sys.exit(0 if asyncio.run(main(sys.argv[1].rstrip("/"), sys.argv[2])) else 1)
