"""The doors: one response under each interface, and what they need of it."""
