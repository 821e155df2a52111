"""Torture: processes are killed at random while they track and deliver; nothing may be lost."""
