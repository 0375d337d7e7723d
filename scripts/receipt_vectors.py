#!/usr/bin/env python3
"""Test vectors of docs/receipts.md, computed from the text of that page alone, with the standard library and without the
product's code.

    scripts/receipt_vectors.py                       prints the vectors
    scripts/receipt_vectors.py --check docs/receipts.md   compares them with the page's JSON block, exit status 1 if they differ
    scripts/receipt_vectors.py --write docs/receipts.md   writes them into the page
"""

import base64
import hashlib
import json
import re
import sys
import uuid
from datetime import datetime, timezone

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
JSON_BLOCK = re.compile(r"```json vectors\n(.*?)\n```", re.DOTALL)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def on_curve(address: bytes) -> bool:
    """Whether 32 bytes are a compressed point of edwards25519 (RFC 8032, section 5.1.3)."""
    y = int.from_bytes(address, "little") & (2**255 - 1)
    if y >= P:
        return False
    x_squared = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    return x_squared != 0 and pow(x_squared, (P - 1) // 2, P) == 1


def wallet(name: str) -> bytes:
    """A reproducible address for which a key can exist."""
    candidate = sha256(name.encode())
    while not on_curve(candidate):
        candidate = sha256(candidate)
    return candidate


def base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def micros(timestamp: str) -> int:
    span = datetime.fromisoformat(timestamp.replace("Z", "+00:00")) - EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def with_length(text: str) -> bytes:
    data = text.encode("utf-8")
    return len(data).to_bytes(2, "big") + data


def leaf(reading: dict, address: bytes) -> bytes:
    return sha256(
        b"\x00"
        + uuid.UUID(reading["reading_id"]).bytes
        + bytes.fromhex(reading["salt"])
        + micros(reading["interval_start"]).to_bytes(8, "big", signed=True)
        + micros(reading["reading_timestamp"]).to_bytes(8, "big", signed=True)
        + int(reading["base_units"]).to_bytes(8, "big")
        + address
        + with_length(reading["meter_id"])
        + with_length(reading["kwh_amount"])
    )


def root(leaves: list) -> bytes:
    """MTH of RFC 6962, section 2.1, by its definition."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def path(index: int, leaves: list) -> list:
    """PATH of RFC 6962, section 2.1.1, by its definition."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if index < k:
        return path(index, leaves[:k]) + [root(leaves[k:])]
    return path(index - k, leaves[k:]) + [root(leaves[:k])]


def memo(number: int, tree_root: bytes) -> str:
    encoded = base64.urlsafe_b64encode(number.to_bytes(6, "big") + tree_root)
    return "g1" + encoded.decode().rstrip("=")


# Not in the order of their ids, because the order of the leaves is part of the test.
READINGS = [
    # reading_id, meter_id, kwh_amount, base_units, interval_start, reading_timestamp
    ("0192f0c4-8a00-7e11-8c33-9d5f2b7a6e05", "ausgrid-12-2012-07-01", "1.25", 1_250_000_000,
     "2026-03-01T12:00:00Z", "2026-03-01T12:30:00Z"),
    ("0192f0c4-8a00-7e11-8c33-9d5f2b7a6e01", "M1", "0.000000001", 1,
     "1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z"),
    ("0192f0c4-8a00-7e11-8c33-9d5f2b7a6e08", "Zähler·Ω", "18446744073.709551615", 2**64 - 1,
     "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
    ("0192f0c4-8a00-7e11-8c33-9d5f2b7a6e03", "電力計#7", "100", 100_000_000_000,
     "2026-03-01T12:00:00.000001Z", "2026-03-01T12:15:00.000001Z"),
    ("ffffffff-ffff-ffff-ffff-ffffffffffff", "x" * 64, "0.123456789123456789", 123_456_789,
     "9999-12-31T22:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ("00000000-0000-0000-0000-000000000000", "!", "3", 3_000_000_000,
     "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),
    ("0192f0c4-8a00-7e11-8c33-9d5f2b7a6e02", "M1", "42.5", 42_500_000_000,
     "1970-01-01T00:01:00Z", "1970-01-01T00:16:00Z"),
    ("7f000000-0000-4000-8000-000000000001", "𝔐-🔌", "0.05", 50_000_000,
     "2026-12-31T23:45:00Z", "2027-01-01T00:00:00Z"),
]


def vectors() -> dict:
    readings, hashes = [], []
    for number, (reading_id, meter_id, kwh, base_units, start, end) in enumerate(READINGS):
        address = wallet(f"wallet {number}")
        reading = {
            "reading_id": reading_id,
            "salt": sha256(f"salt {number}".encode())[:16].hex(),
            "interval_start": start,
            "reading_timestamp": end,
            "base_units": str(base_units),
            "wallet_address": base58(address),
            "meter_id": meter_id,
            "kwh_amount": kwh,
        }
        reading["leaf"] = leaf(reading, address).hex()
        readings.append(reading)
        hashes.append((uuid.UUID(reading_id).bytes, bytes.fromhex(reading["leaf"])))

    trees = []
    for size in (1, 2, 3, 5, 8):
        leaves = [leaf_hash for _, leaf_hash in sorted(hashes[:size])]
        trees.append({
            "size": size,
            "root": root(leaves).hex(),
            "paths": [[step.hex() for step in path(index, leaves)] for index in range(size)],
        })

    numbers = (0, 1, 258, 1_000_000, 2**48 - 1)
    memos = [
        {"number": number, "root": tree["root"], "memo": memo(number, bytes.fromhex(tree["root"]))}
        for number, tree in zip(numbers, trees)
    ]
    for edge in (b"\x00" * 32, b"\xff" * 32):
        memos.append({"number": 1, "root": edge.hex(), "memo": memo(1, edge)})
    return {"readings": readings, "trees": trees, "memos": memos}


def main(arguments: list) -> int:
    text = json.dumps(vectors(), indent=1, ensure_ascii=False)
    if not arguments:
        print(text)
        return 0
    action, page_name = arguments
    with open(page_name, encoding="utf-8") as file:
        page = file.read()
    found = JSON_BLOCK.search(page)
    if found is None:
        print(f"{page_name} has no block that begins with ```json vectors", file=sys.stderr)
        return 1
    if action == "--write":
        with open(page_name, "w", encoding="utf-8") as file:
            file.write(page[: found.start(1)] + text + page[found.end(1):])
        return 0
    if action == "--check":
        if json.loads(found.group(1)) == vectors():
            return 0
        print(f"the vectors in {page_name} are not those that its text gives", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
