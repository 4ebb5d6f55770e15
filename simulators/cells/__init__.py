"""Simulated electrochemical cells."""
