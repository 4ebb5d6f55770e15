"""Recipes from and to the formats of others; what a format cannot carry is named, never dropped."""
