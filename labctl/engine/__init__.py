"""The engine: runs Programs on Channels and journals what happens."""
