"""Config: what a site says of itself, read and checked once."""
