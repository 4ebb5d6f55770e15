"""``labctl demo``: the whole system on simulated cells, on one PC, in virtual time."""
