"""Simulated electrochemical cells: ``build_cell(CellSpec(...))`` gives one."""

from __future__ import annotations

from labctl.simulators.cells.build import build_cell
from labctl.simulators.cells.spec import Anode, CellSpec, Faults

__all__ = ["Anode", "CellSpec", "Faults", "build_cell"]
