"""Espec climate chambers with a P-300, PR-3J or SCP-220 controller, over TCP or a serial line."""
