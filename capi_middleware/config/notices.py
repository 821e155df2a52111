"""Notices: what looks wrong with an installation, said once each, as notices.toml has it."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from capi_middleware.shield import about
from capi_middleware.signing import fingerprint
from capi_middleware.store.store import Store


class Notice(Struct, frozen=True):
    """What is said of a topic, perhaps only with `debug`, or as an error each time there."""

    text: str
    debug_only: bool = False
    debug_error: bool = False


logger: logging.Logger = logging.getLogger("capi_middleware")

_NOTICES = msgspec.toml.decode(
    Path(__file__).with_name("notices.toml").read_bytes(), type=dict[str, Notice]
)
#: Under which name the store keeps the fingerprint of the key that signs.
_SECRETS = "secret_key"

#: File systems that lose what is written, and those whose locks SQLite cannot rely on.
PASSING = frozenset({"tmpfs", "ramfs"})
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs",
     "vboxsf"}
)  # fmt: skip
#: What AWS Lambda, Google's functions and Cloud Run, Azure's functions and Vercel set.
_SERVERLESS = (
    "AWS_LAMBDA_FUNCTION_NAME", "FUNCTION_TARGET", "K_SERVICE", "FUNCTIONS_WORKER_RUNTIME",
    "VERCEL",
)  # fmt: skip


def on_network(kind: str) -> bool:
    """Whether a file system of this type is somewhere else: what a process mounts counts as well.

    `kind` as filesystem_of tells it: "fuse.sshfs", "fuse.s3fs" and whatever is made next.
    """
    return kind in _NETWORK or kind.startswith("fuse.")


#: So many notices at most: what is said of could come from visitors.
_MOST_SUBJECTS = 200


class Notices:
    """Each notice is one warning in the log "capi_middleware". Some are for `debug` alone."""

    def __init__(self, debug: bool) -> None:
        self._debug = debug
        self._said: set[str] = set()

    def say(self, topic: str) -> None:
        """Say once what is known about something, if anything is."""
        notice = _NOTICES.get(topic)
        if notice is not None and (self._debug or not notice.debug_only):
            self._once(topic, notice.text)

    def about(self, topic: str, subject: str, **words: str) -> None:
        """Say once what is known of a topic, about each of a bounded number of subjects."""
        notice, key = _NOTICES[topic], f"{topic} {subject}"
        if notice.debug_error and self._debug:
            text = notice.text.format(subject=subject, **words)
            logger.error(text, extra=about("notice", subject=key))
        elif len(self._said) < _MOST_SUBJECTS:
            self._once(key, notice.text.format(subject=subject, **words))

    def about_store(self, url: str) -> None:
        """Say it when a store is where it cannot last, or ends with the process."""
        local = url.startswith(("sqlite:///", "memory:"))
        if local and (variable := serverless()):
            text = _NOTICES["store_serverless"].text
            self._once("store", text.format(name=url.partition(":")[0], variable=variable))
        if not url.startswith("sqlite:///"):
            return
        path = Path(url.removeprefix("sqlite:///")).resolve()
        kind = filesystem_of(path, mounts())
        if kind in PASSING or on_network(kind):
            why = _NOTICES["store_passing" if kind in PASSING else "store_network"].text
            self._once("store", why.format(name=path.name, kind=kind))

    def about_freezing(self, on_thread: bool) -> None:
        """Say it when events are delivered by a thread of a process that is frozen meanwhile."""
        if on_thread and (variable := serverless()):
            self._once("freezing", _NOTICES["freezing"].text.format(variable=variable))

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


def serverless() -> str:
    """The variable that says that this process may be frozen, and its files lost; "" else."""
    return next((name for name in _SERVERLESS if os.environ.get(name)), "")


def kept_home(graph_url: str) -> bool:
    """Whether CAPI_DELIVERY=off keeps events of this process here: all but a fake Meta's."""
    here = urlsplit(graph_url).hostname in ("127.0.0.1", "::1", "localhost")
    return os.environ.get("CAPI_DELIVERY") == "off" and not here


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
