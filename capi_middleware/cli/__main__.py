"""`python -m capi_middleware.cli` is `capi-middleware`."""

from capi_middleware.cli import main

if __name__ == "__main__":
    main()
