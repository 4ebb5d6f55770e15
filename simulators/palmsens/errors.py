"""Error codes that the simulated instrument gives.

Source: MethodSCRIPT manual v1.8, appendix A.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    UNSPECIFIED = 0x0001
    UNKNOWN_COMMAND = 0x0003
    UNKNOWN_REGISTER = 0x0004
    NOT_NOW = 0x0006
    BAD_ARGUMENT = 0x0007
    TOO_LONG = 0x0008
    NOTHING_LOADED = 0x000C
    BAD_POTENTIAL = 0x000F
    NOT_A_NUMBER = 0x0010
    BAD_FREQUENCY = 0x0011
    BAD_AMPLITUDE = 0x0012
    OCP_WITH_CELL_ON = 0x0014
    NOT_ON_THIS_DEVICE = 0x001B
    STEP_TOO_SMALL = 0x001C
    NO_SUCH_MODE = 0x0021
    WRONG_MODE = 0x0023
    DIVISION_BY_ZERO = 0x0028
    CRITICAL_OVERLOAD = 0x0032
    NOT_MULTI = 0x0048
    NO_SUCH_PIN = 0x0055
    TOO_FAST = 0x005A
    NOT_RANGED = 0x0084
    PIN_IS_NO_OUTPUT = 0x00BA
    UNKNOWN_SCRIPT_COMMAND = 0x4001
    BAD_CHARACTER = 0x4004
    SCRIPT_TOO_LARGE = 0x4005
    BAD_OPTION = 0x4008
    NESTED_MEASUREMENT = 0x400B
    NOT_THERE = 0x400C
    TOO_DEEP = 0x400D
    BAD_SCOPE = 0x400E
    BAD_INDEX = 0x400F
    ENDED_EARLY = 0x4018
    NOT_IN_MEASUREMENT = 0x401A
    BAD_PACKAGE = 0x401B
    PACKAGE_FULL = 0x401C
    DECLARED_TWICE = 0x4026
    NEEDS_CELL_ON = 0x4027
    NEEDS_CELL_OFF = 0x4028
    NO_STEP = 0x4029
    BAD_NAME = 0x402B
    NAME_TOO_LONG = 0x402C
    POTENTIAL_IN_LOOP = 0x4032
    CURRENT_IN_LOOP = 0x4033
    OVERFLOW = 0x4037
    BAD_LITERAL = 0x4039
    CANNOT_COMPARE = 0x4041
    NEGATIVE = 0x4200
    ZERO = 0x4202
    NOT_POSITIVE = 0x4204
    OUT_OF_BOUNDS = 0x4205
    NOT_FOR_THIS_MODEL = 0x4206
    WRONG_DATATYPE = 0x4207
    BAD_VARIABLE_TYPE = 0x4209
    EXTRA_ARGUMENT = 0x420A
    NOT_DECLARED = 0x420B
    NEEDS_A_VARIABLE = 0x420D


class ScriptError(Exception):
    """A script that is refused, or that fails. Lines and columns count from 1; 0 is none."""

    def __init__(self, code: Code, line: int = 0, column: int = 0) -> None:
        self.code = code
        self.line = line
        self.column = column
        super().__init__(self.text)

    @property
    def text(self) -> str:
        """As the instrument writes it."""
        where = f": Line {self.line}" if self.line else ""
        if self.line and self.column:
            where += f", Col {self.column}"
        return f"!{self.code:04X}{where}"


class RunError(Exception):
    """What goes wrong while a command is carried out; the interpreter knows in which line."""

    def __init__(self, code: Code) -> None:
        self.code = code
        super().__init__(f"{code:04X}")
