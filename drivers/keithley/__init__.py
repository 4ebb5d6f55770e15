"""Keithley 2450, 2460 and 2461 SourceMeters as potentiostats and galvanostats."""
