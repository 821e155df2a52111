"""Notices: what looks wrong with an installation, said once each, with what to do about it."""

import logging
from collections.abc import Sequence
from pathlib import Path

from capi_middleware.shield import about
from capi_middleware.signing import fingerprint
from capi_middleware.store.store import Store

logger: logging.Logger = logging.getLogger("capi_middleware")

_TEXTS = {
    "encoded": (
        "found a page compressed inside of CAPIMiddleware with something other than gzip (br, "
        "zstd), expected it plain: no tag was put into it; install the compressor outside of "
        "CAPIMiddleware"
    ),
    "no_transform": (
        "found a page with Cache-Control: no-transform, which forbids the tag; leave no-transform "
        "out where pages are events"
    ),
    "csp": (
        "found a page whose Content-Security-Policy blocks our script, so it got no tag; allow "
        "script-src 'self'"
    ),
    "twice": (
        "found a request that another CAPIMiddleware further out has already, expected one: the "
        "inner one lets it pass; take one of them away"
    ),
    "no_lifespan": (
        "found a server that sends no lifespan events (or an app around us that keeps them), "
        "expected them: what is queued at the shutdown is delivered at the exit of the process, "
        "if it comes to it; switch lifespan on"
    ),
    "secrets": (
        "found another process on this store that signs with a secret_key which is unknown here, "
        "expected the same in all: its event_ids and visitors are refused here; give all the same "
        "key, and a list of both while you change it"
    ),
    "cache": (
        "found a cache before CAPIMiddleware in MIDDLEWARE, expected CAPIMiddleware first: the "
        "cache would keep the event_ids of one visitor for all others"
    ),
}
#: Under which name the store keeps the fingerprint of the key that signs.
_SECRETS = "secret_key"
_DEBUG_ONLY = frozenset({"no_transform", "csp", "no_lifespan"})

#: File systems that lose what is written, and those whose locks SQLite cannot rely on.
PASSING = frozenset({"tmpfs", "ramfs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs",
     "vboxsf"}
)  # fmt: skip


def on_network(kind: str) -> bool:
    """Whether a file system of this type is somewhere else: what a process mounts counts as well.

    `kind` as filesystem_of tells it: "fuse.sshfs", "fuse.s3fs" and whatever is made next.
    """
    return kind in _NETWORK or kind.startswith("fuse.")


class Notices:
    """Each notice is one warning in the log "capi_middleware". Some are for `debug` alone."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._said: set[str] = set()

    def say(self, topic: str) -> None:
        """Say once what is known about something, if anything is."""
        if topic in _TEXTS and (self._debug or topic not in _DEBUG_ONLY):
            self._once(topic, _TEXTS[topic])

    def about_store(self, url: str) -> None:
        """Say it when the file of an SQLite store is where it cannot last."""
        if not url.startswith("sqlite:///"):
            return
        path = Path(url.removeprefix("sqlite:///")).resolve()
        kind = filesystem_of(path, mounts())
        if kind in PASSING:
            why = "which a restart of the machine empties, expected a disk"
        elif on_network(kind):
            why = (
                "a network file system where SQLite's locks are not safe, expected a local disk; "
                "use postgresql:// for several machines"
            )
        else:
            return
        self._once("store", f"found the store {path.name} on {kind}, {why}")

    def about_secrets(self, secrets: Sequence[str], store: Store) -> None:
        """Say it when a process that uses the same store signs with none of these keys.

        The store keeps a fingerprint of the key that signed last. Raises StoreError.
        """
        marks = [fingerprint(secret).encode() for secret in secrets]
        kept = store.kept(_SECRETS)
        if kept is not None and kept not in marks:
            self.say("secrets")
        if kept != marks[0]:
            store.keep(_SECRETS, marks[0], instead_of=kept)

    def _once(self, topic: str, text: str) -> None:
        if topic not in self._said:
            self._said.add(topic)
            logger.warning(text, extra=about("notice", subject=topic))


def filesystem_of(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path`; "" where nobody knows.

    `mounts` is what /proc/mounts says: device, place, type and options, one mount a line; blanks
    in a place are written as \\040 (proc(5)).
    """
    found, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = fields[1].replace("\\040", " ")
        if path.is_relative_to(place) and len(place) >= len(found):
            found, kind = place, fields[2]
    return kind


def mounts() -> str:
    """What /proc/mounts says; "" where there is none."""
    try:
        return Path("/proc/mounts").read_text("utf-8", "replace")
    except OSError:  # not Linux
        return ""
