"""A shop for many processes, and what starts it."""
