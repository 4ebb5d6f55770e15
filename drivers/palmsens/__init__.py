"""PalmSens potentiostats that run MethodSCRIPT: EmStat4S, EmStat4X, Nexus and EmStat Pico."""
