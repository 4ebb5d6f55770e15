"""Alarm rules and what becomes of an alarm."""
