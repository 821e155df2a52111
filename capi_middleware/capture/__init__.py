"""Stations before the outbox: pure, no clock, socket or database."""
