"""Drivers: one module an instrument, one line in DRIVERS."""
