"""Minting and verifying event_ids beside itsdangerous, which signs a text of the same length."""

import time
from collections.abc import Iterator
from hashlib import sha256

from itsdangerous import Signer

from capi_middleware.signing import Minter
from tests.benchmarks.measure import Row
from tests.support.configs import SECRET


def rows() -> Iterator[Row]:
    """What the table says about minting."""
    minter = Minter([SECRET])
    signer = Signer(SECRET, salt="capi.event_id", digest_method=sha256)
    body = "t" + "0" * 19
    ours, theirs = minter.mint("Purchase", time.time()), signer.sign(body)
    yield Row(
        "minting an event_id", "itsdangerous, Signer.sign", 1.5,
        lambda: minter.mint("Purchase", time.time()), lambda: signer.sign(body),
    )  # fmt: skip
    yield Row(
        "verifying an event_id", "itsdangerous, Signer.unsign", 1.5,
        lambda: minter.verifies(ours, "Purchase"), lambda: signer.unsign(theirs),
    )  # fmt: skip
