"""Orders on their way through days, devices, deploys and caches, held against Meta's rule."""
