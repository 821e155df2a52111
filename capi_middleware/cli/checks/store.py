"""The store: can it be opened and written, and does its disk keep what it is given?"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from capi_middleware.cli.checks.model import Finding, error, ok, warning
from capi_middleware.config.settings import Config
from capi_middleware.errors import CapiError
from capi_middleware.report.flags import Facts, flags_of
from capi_middleware.report.read import read_health
from capi_middleware.store.store import Store

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "vboxsf"}
)
_MEMORY = frozenset({"tmpfs", "ramfs"})
#: Free space below which a full disk is near, in bytes.
_LITTLE = 500 * 1024 * 1024
_PROBE = "check"


def check_store(config: Config, store: Store) -> Iterator[Finding]:
    """Opens the store, writes a mark into it, and looks at what it lies on."""
    kind = config.store.partition(":")[0]
    try:
        depth = store.depth()
        before = store.kept(_PROBE)
        store.keep(_PROBE, repr(time.time()).encode(), instead_of=before)
        health = read_health(store, config)
    except CapiError as failure:
        yield error(
            "store",
            f"{kind}: {failure}",
            "Check that the path or the server exists and that this user may write.",
        )
        return
    yield ok("store", f"{kind}: opens and takes writes, {sum(depth.values()):,} events")
    for flag in flags_of(Facts(health=health)):
        yield Finding(
            "delivery",
            "error" if flag.severity == "critical" else "warning",
            flag.explanation,
            flag.fix,
        )
    if kind == "memory":
        yield warning(
            "store", "memory: forgets all events at a restart", 'Set store = "sqlite:///capi.db".'
        )
    elif kind == "sqlite":
        yield from _disk(Path(config.store.removeprefix("sqlite:///")))


def _disk(path: Path) -> Iterator[Finding]:
    mounts = Path("/proc/mounts")
    kind = file_system(path.absolute(), mounts.read_text()) if mounts.exists() else ""
    if kind in _NETWORK or kind.startswith("fuse."):
        yield error(
            "store",
            f"{path} lies on a network file system ({kind}): SQLite's locks and "
            "its write-ahead log do not work there",
            "Put the file on a local disk, or use postgresql:// for several machines.",
        )
    elif kind in _MEMORY:
        yield warning(
            "store", f"{path} lies in memory ({kind}): lost at a reboot", "Put the file on a disk."
        )
    elif kind == "overlay":
        yield warning(
            "store", f"{path} lies in the container: lost with it", "Put the file on a volume."
        )
    free = shutil.disk_usage(path.absolute().parent).free
    if free < _LITTLE:
        yield warning(
            "store",
            f"{free // 1024**2:,} MB are free on its disk",
            "Make room: a full disk holds events back in memory.",
        )


def file_system(path: Path, mounts: str) -> str:
    """The kind of file system that `path` lies on, by the text of /proc/mounts."""
    found = (0, "")
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = parts[1].replace(r"\040", " ")
        if path.is_relative_to(point) and len(point) >= found[0]:
            found = (len(point), parts[2])
    return found[1]
