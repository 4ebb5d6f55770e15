"""labctl runs an electrochemistry laboratory: recipes, instruments, readings, retention."""

__version__ = "0.1.0"
