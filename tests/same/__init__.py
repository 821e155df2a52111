"""`make same AGAINST=REV`: the same generated exchanges through two revisions, and what differs."""
