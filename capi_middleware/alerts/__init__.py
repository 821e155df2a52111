"""Alerts: when the owner is told, of what, and how."""
