"""A simulated Rodeostat: its tests and electronics, and JSON lines on a serial port in front."""
