"""`make script`: the pixel script as pages load it, made of its source."""

from collections.abc import Sequence
from pathlib import Path

import minify

import capi_middleware.page
from capi_middleware.events import STANDARD_EVENTS

_FOLDER = Path(capi_middleware.page.__path__[0])
MADE = _FOLDER / "s.min.js"
LISTENING = _FOLDER / "c.min.js"
BEFORE = _FOLDER / "foreign.min.js"
#: What runs before the events are out.
FIRST = ("common", "events", "outcomes", "start")
#: What is called after the events are out.
REST = ("asking", "judging", "mirror", "forms", "routers")
#: Where the site has a rule of consent.
LISTENS = ("banners", "consent")
ALL = (*FIRST[:-1], *REST, FIRST[-1])
#: V8, "Explicit JavaScript compile hints".
_HINT = "//# allFunctionsCalledOnLoad\n"


def source(modules: Sequence[str] = ALL) -> str:
    """The modules in one scope of their own."""
    texts = [(_FOLDER / "script" / f"{name}.js").read_text("utf-8") for name in modules]
    joined = "".join(texts).replace("STANDARD_EVENTS", " ".join(sorted(STANDARD_EVENTS)))
    return "(() => {\n" + joined + "})();\n"


def made(text: str = "") -> str:
    """What s.min.js must be, or what the `text` of some modules becomes."""
    return str(minify.string("application/javascript", text or source())) + "\n"


def whole() -> str:
    """What s.min.js must be. Chromium compiles it at once, while it comes, on another thread."""
    return _HINT + made()


def listening() -> str:
    """What c.min.js must be."""
    return _HINT + made(source((*ALL[:-1], *LISTENS, ALL[-1])))


def before() -> str:
    """What foreign.min.js must be: an expression."""
    text = (_FOLDER / "script" / "foreign.js").read_text("utf-8")
    return made(text).rstrip(";\n") + "\n"


if __name__ == "__main__":
    MADE.write_text(whole(), "utf-8")
    LISTENING.write_text(listening(), "utf-8")
    BEFORE.write_text(before(), "utf-8")
