"""Flags: what somebody should look at, with the evidence, an explanation and the fix."""
