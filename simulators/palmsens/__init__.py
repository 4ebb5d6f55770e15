"""A simulated PalmSens potentiostat: MethodSCRIPT over a serial port or TCP."""
