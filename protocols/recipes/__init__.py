"""Recipes that come with labctl."""
