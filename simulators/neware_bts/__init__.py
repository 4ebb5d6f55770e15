"""A Neware BTS 8 rack on a socket, as seen from the other side of its XML interface."""
