"""A simulated Keithley 2450, 2460 or 2461 SourceMeter with a cell at its terminals."""
