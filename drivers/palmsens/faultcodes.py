"""Error replies of MethodSCRIPT instruments, in words. No I/O.

``e!4001: Line 3, Col 9`` refuses a script, ``!0032: Line 12`` ends one that runs, ``t!0003``
refuses a command.

Source: MethodSCRIPT manual v1.8, appendix A.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NOT_NOW: Final = 0x0006
"""Refuses what can only be done while a script runs, or while none does."""

MEANINGS: Final = {
    0x0001: "an error of no known kind",
    0x0002: "there is no such type of variable",
    0x0003: "it does not know the command",
    0x0004: "there is no such register",
    0x0005: "the register can only be read",
    NOT_NOW: "not now: a script runs, or none does",
    0x0007: "an argument has a value that cannot be",
    0x0008: "the line is too long",
    0x0009: "it took too long",
    0x000B: "its memory has no room for the variable",
    0x000C: "no script was loaded",
    0x000E: "averaging a measured value overflowed",
    0x000F: "it cannot set this potential",
    0x0010: "a variable is no longer a number",
    0x0011: "it cannot do this frequency",
    0x0012: "it cannot do this amplitude",
    0x0014: "the open-circuit potential cannot be measured while the cell is on",
    0x001B: "this model does not have the command, or not in this form",
    0x001C: "the potential step is below the resolution",
    0x001D: "the pulse is below the resolution",
    0x001E: "the amplitude is below the resolution",
    0x001F: "the instrument has no licence for the technique",
    0x0020: "the potentiostat's mode conflicts with another channel's",
    0x0021: "this model does not have the potentiostat's mode",
    0x0022: "the channel is not a second working electrode",
    0x0023: "the command does not go with the potentiostat's mode",
    0x0024: "too many variables are measured at once",
    0x0028: "a division by zero",
    0x002B: "the line's checksum was wrong",
    0x002C: "the line's number was not the one expected",
    0x002D: "the line was too short",
    0x0032: "a critical overload of the cell: it stopped to prevent damage",
    0x0048: "it is no instrument of several channels",
    0x0055: "it has no such digital line",
    0x0058: "it could not keep its timing",
    0x005A: "it cannot measure as fast as it is asked to",
    0x0080: "the counter electrode oscillates",
    0x0084: "a variable of this type has no ranges",
    0x00BA: "the digital line is not set as an output",
    0x4001: "there is no such script command",
    0x4004: "a character that cannot stand there",
    0x4005: "the script is too large for its memory",
    0x4008: "the command has no such optional argument",
    0x400B: "a measurement loop inside another",
    0x400C: "the command cannot stand there",
    0x400D: "loops and conditions are nested too deeply",
    0x400E: "loops and conditions do not close where they should",
    0x400F: "there is no such element of the array",
    0x4018: "the script ends too early",
    0x401A: "the command cannot stand in a measurement loop",
    0x401B: "the commands of a data package are in the wrong order",
    0x401C: "too many variables in a data package",
    0x4026: "the variable was declared already",
    0x4027: "the cell must be on",
    0x4028: "the cell must be off",
    0x4029: "the measurement would have no step at all",
    0x402B: "not a name for a variable",
    0x402C: "the variable's name is too long",
    0x4032: "the potential cannot be set in a measurement loop that sets it",
    0x4033: "the current cannot be set in a measurement loop that sets it",
    0x4036: "the command can only stand in a measurement loop",
    0x4037: "a computation overflowed",
    0x4038: "not an element of an array",
    0x4039: "not a number",
    0x4041: "the two cannot be compared",
    0x4200: "an argument cannot be negative",
    0x4202: "an argument cannot be zero",
    0x4204: "an argument must be above zero",
    0x4205: "an argument is out of bounds",
    0x4206: "an argument is not for this model",
    0x4207: "an integer where it needs none, or the other way round",
    0x4209: "a type of variable that the command cannot take",
    0x420A: "one argument too many",
    0x420B: "the variable was not declared",
    0x420D: "a number where it needs a variable",
    0x7FFF: "a fatal error: it has to be switched off and on",
}

_ERROR = re.compile(
    r"(?P<command>[A-Za-z_]{0,10})!(?P<code>[0-9A-Fa-f]{4})"
    r"(?::? *Line (?P<line>\d{1,9})(?:, *Col (?P<column>\d{1,9}))?)?"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error reply. ``command`` is '' for a script that ran; lines count from 1, 0 for none."""

    command: str
    code: int
    line: int = 0
    column: int = 0

    def words(self, script: Sequence[str] = ()) -> str:
        """The error as a person reads it; ``script`` is what the line number counts in."""
        meaning = MEANINGS.get(self.code, "see appendix A of the MethodSCRIPT manual")
        where = ""
        if self.line:
            column = f", column {self.column}" if self.column else ""
            where = f" in line {self.line}{column}"
            if self.line <= len(script):
                where += f" ({script[self.line - 1].strip()!r})"
        return f"error {self.code:04X}{where}: {meaning}"


def parse_refusal(line: str) -> Refusal | None:
    """The error in a reply or in a line of a script's output; None if it is none."""
    match = _ERROR.match(line)
    if match is None:
        return None
    return Refusal(
        match["command"],
        int(match["code"], 16),
        int(match["line"] or 0),
        int(match["column"] or 0),
    )
