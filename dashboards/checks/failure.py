class Failure(Exception):
    """A check does not hold; the text says which, and why."""
