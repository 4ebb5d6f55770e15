"""The SQL archive: its schema, its one writer, and how to read it."""
