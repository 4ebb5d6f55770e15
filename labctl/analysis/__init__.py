"""Pure electrochemistry: cycles, dQ/dV and what else is computed from records."""
