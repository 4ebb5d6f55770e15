"""Alarm rules and what becomes of an alarm. Pure: the archive keeps what they say."""
