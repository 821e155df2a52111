"""What the demos share: three pages, and the settings that differ from place to place."""

import os
from pathlib import Path
from typing import Any

from capi_middleware import Pixel

HOME, PRODUCT, THANKS = (
    Path(__file__).with_name("pages").joinpath(name).read_text("utf-8")
    for name in ("home.html", "product.html", "thanks.html")
)


def environment() -> dict[str, Any]:
    """Settings of Config from CAPI_SECRET_KEY, CAPI_STORE and CAPI_META, a fake Meta's address."""
    meta = os.environ["CAPI_META"]
    return {
        "secret_key": os.environ["CAPI_SECRET_KEY"],
        "pixels": [Pixel("1234567890", access_token="demo-access-token")],
        "store": os.environ["CAPI_STORE"],
        "report_token": "the-demo-report-token",
        "graph_url": meta,
        "pixel_script_url": f"{meta}/en_US/fbevents.js",
    }
