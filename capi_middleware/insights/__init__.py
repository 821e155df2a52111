"""Meta's own view: asked for, kept in the store, and put beside our numbers."""
