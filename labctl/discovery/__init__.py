"""What is connected to this PC and its networks, what it is, and how a configuration names it."""
