"""The manual: README.md, and what stands in demo/; its blocks of code."""

import re
import tomllib
from typing import NamedTuple

from tests.support.processes import ROOT

#: What is read from the first page on, in this order.
PAGES = {
    name: (ROOT / name).read_text("utf-8")
    for name in ("README.md", "demo/README.md", "demo/coming-from.md")
}
URLS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "urls"
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block and where it begins."""

    page: str
    line: int
    language: str
    text: str

    @property
    def is_site(self) -> bool:
        """Whether it is a file of a site, which its first line names."""
        return self.text.startswith(("# main.py", "# settings.py"))


def blocks(language: str) -> list[Block]:
    """The blocks of a language in the order in which they are read, but for those of sites."""
    return [one for one in BLOCKS if one.language == language and not one.is_site]


def where(block: Block) -> str:
    """The id of a block for pytest."""
    return f"{block.page}, line {block.line}"


def prose(page: str) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", PAGES[page])


BLOCKS = [
    Block(page, text[: found.start()].count("\n") + 1, found[1], found[2])
    for page, text in PAGES.items()
    for found in _FENCE.finditer(text)
]
