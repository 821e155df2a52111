"""Front ends that Python does not answer, beside an API that it does: `make demo-frontends`."""
