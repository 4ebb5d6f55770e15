"""Figures and tables for people, out of plain DataFrames."""
