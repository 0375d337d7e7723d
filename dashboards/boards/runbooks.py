"""docs/runbooks.md, section by section, so that it is at hand where the alert is seen."""

import re
import zlib
from pathlib import Path

from .panels import board, row, text

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "runbooks.md"


def sections():
    """Title and text of each section; the page's own introduction is the first, under the name "First"."""
    introduction, *parts = re.split(r"^## (.+)\n", DOCUMENT.read_text(), flags=re.MULTILINE)
    first = introduction.partition("First, whatever it is:")[2]
    return [("First, whatever it is", first.strip()), *zip(parts[::2], (content.strip() for content in parts[1::2]))]


def anchor(title):
    """As the usual renderers of Markdown make it."""
    return re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")


def number(title):
    """Of the section's panel. It follows from the title, not from the place: notifications and chats keep links for years, and
    sections come and move."""
    return 1000 + zlib.crc32(anchor(title).encode()) % 999_000


def build():
    numbers = {anchor(title): number(title) for title, _ in sections()}
    if len({*numbers.values()}) < len(sections()):
        raise ValueError(f"two sections of {DOCUMENT.name} have one title, or one number: name one differently")

    def linked(content):
        """Links between sections lead to their panels; links to other pages become their names."""
        content = re.sub(
            r"\[([^\]]+)\]\(#([^)]+)\)",
            lambda found: f"[{found.group(1)}](/d/gridtokenx-runbooks?viewPanel={numbers[found.group(2)]})",
            content,
        )
        return re.sub(r"\[([^\]]+)\]\(([^/)][^)]*)\)", lambda found: f"{found.group(1)} (docs/{found.group(2).partition('#')[0]})", content)

    panels = [
        (12, {"id": number(title), **text(title, linked(content), f"docs/runbooks.md#{anchor(title)}")})
        for title, content in sections()
    ]
    return board("runbooks", "Runbooks", "What each alert means, where to look, what to do.", [row("Runbooks", *panels)])
