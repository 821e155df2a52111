"""The fake Meta in a process of its own, which ends with the one that started it.

`python -m demo.meta PORT` reads its input until that ends.
"""

import sys
import threading

import uvicorn

from capi_middleware.testing import create_app


def main() -> None:
    config = uvicorn.Config(
        create_app, factory=True, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning"
    )
    server = uvicorn.Server(config)

    def end_with_parent() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
