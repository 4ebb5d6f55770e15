"""Migrations of the archive's schema, run by :func:`labctl.archive.database.upgrade`."""
