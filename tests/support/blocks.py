"""The data block of a page: what its tag tells the pixel script."""

import json
from typing import Any


def block_of(text: str) -> dict[str, Any]:
    """The data block in the text of a page."""
    block: dict[str, Any] = json.loads(text.split("data-c>")[1].split("</script>")[0])
    return block


def question(text: str, url: str, **more: Any) -> dict[str, Any]:
    """What the script of a page asks when it is shown at `url`."""
    block = block_of(text)
    said: dict[str, Any] = {name: block[name] for name in ("k", "y", "w") if name in block}
    return {"u": url, "r": "", **said, **more}
