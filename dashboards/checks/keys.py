"""Wallet addresses: points of the curve Ed25519 in base58. No one has their keys."""

import secrets

PRIME = 2**255 - 19
D = -121665 * pow(121666, -1, PRIME) % PRIME
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def is_on_curve(encoded):
    """RFC 8032, section 5.1.3: whether there is an x for this y."""
    y = int.from_bytes(encoded, "little") & ((1 << 255) - 1)
    if y >= PRIME:
        return False
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
    return x_squared == 0 or pow(x_squared, (PRIME - 1) // 2, PRIME) == 1


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def new_wallet():
    """32 bytes, and their address."""
    while True:
        key = secrets.token_bytes(32)
        if is_on_curve(key):
            return key, base58(key)
