"""The recipe language: what a person writes, and how it becomes a Program."""
