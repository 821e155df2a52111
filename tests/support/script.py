"""`make script`: the pixel script as pages load it, made of its source."""

from pathlib import Path

import minify

import capi_middleware.page

_FOLDER = Path(capi_middleware.page.__path__[0])
SOURCE, MADE = _FOLDER / "s.js", _FOLDER / "s.min.js"
#: Chromium then compiles every function while it loads the script, on another thread.
_HINT = "//# allFunctionsCalledOnLoad\n"


def made() -> str:
    """What s.min.js must be."""
    return _HINT + str(minify.string("application/javascript", SOURCE.read_text("utf-8"))) + "\n"


if __name__ == "__main__":
    MADE.write_text(made(), "utf-8")
