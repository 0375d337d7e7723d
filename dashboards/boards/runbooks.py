"""docs/runbooks.md, section by section, so that it is at hand where the alert is seen."""

import re
from pathlib import Path

from .panels import board, row, text

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "runbooks.md"


def sections():
    """Title and text of each section; the page's own introduction is left out."""
    parts = re.split(r"^## (.+)\n", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], (content.strip() for content in parts[1::2])))


def anchor(title):
    """As the usual renderers of Markdown make it."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def build():
    panels = [(12, text(title, content, f"docs/runbooks.md#{anchor(title)}")) for title, content in sections()]
    return board("runbooks", "Runbooks", "What each alert means, where to look, what to do.", [row("Runbooks", *panels)])
