"""Stand-ins for instruments and cells; only `labctl simulate`, demo and tests import them."""
