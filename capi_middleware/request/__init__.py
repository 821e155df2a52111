"""One request: who sent it, whether its events may leave, and what its response carries."""
