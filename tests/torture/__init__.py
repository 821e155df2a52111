"""Torture: processes are killed at random while they track and deliver; nothing may be lost."""

import os
import threading
import time

#: In the environment of each process of a round: who plays it.
PLAYER = "CAPI_TORTURE_PLAYER"


def _end_with(player: int) -> None:
    while True:
        try:
            os.kill(player, 0)
        except OSError:
            os._exit(3)
        time.sleep(1)


if PLAYER in os.environ:
    threading.Thread(target=_end_with, args=(int(os.environ[PLAYER]),), daemon=True).start()
