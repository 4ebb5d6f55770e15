"""Neware BTS 8 multichannel cyclers, XML over TCP."""
