"""What lives under the prefix: for browsers, and for those who read the report."""
