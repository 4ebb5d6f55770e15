"""What can go wrong, by who must act.

LabctlError
├── RecipeError       the operator wrote something that cannot run (file, line, column, suggestion)
├── ConfigError       the administrator wrote something that cannot work (file, line, key)
├── PlanError         recipe, cell and channel are each right but do not fit together
├── LinkError         the wire failed; the command may have arrived
├── InstrumentError   the wire worked; the instrument refused or said something impossible
├── JournalError      the node cannot keep readings; nothing may be started
├── ArchiveError      the record could not be kept or read in the archive
├── StreamError       a message that cannot be understood
└── CommandError      a command that may not be carried out now; says which state forbids it

A tripped limit is an outcome of a run, not an exception.
"""

from __future__ import annotations

from dataclasses import dataclass


class LabctlError(Exception):
    """Base of every error that labctl raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file that a person wrote.

    ``line`` and ``column`` count from 1; 0 means that the place is not known.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    source_line: str = ""
    width: int = 1
    suggestion: str = ""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        lines = [f"{place}: {self.message}" if place else self.message]
        if self.source_line and self.column:
            lines.append(f"    {self.source_line}")
            lines.append("    " + " " * (self.column - 1) + "^" * max(1, self.width))
        if self.suggestion:
            lines.append(f"    {self.suggestion}")
        return "\n".join(lines)


class ProblemsError(LabctlError):
    """All the mistakes found in one text, not only the first."""

    def __init__(self, problems: tuple[Problem, ...] | list[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(ProblemsError):
    """The operator wrote something that cannot run."""


class ConfigError(ProblemsError):
    """The administrator wrote something that cannot work."""


class PlanError(LabctlError):
    """Recipe, cell and channel are each right, but do not fit together.

    ``refusals`` says each reason in one sentence.
    """

    def __init__(self, refusals: tuple[str, ...] | list[str]) -> None:
        self.refusals: tuple[str, ...] = tuple(refusals)
        super().__init__("\n".join(self.refusals))


class LinkError(LabctlError):
    """The wire failed; the command may or may not have arrived."""

    def __init__(self, message: str, *, address: str = "", command: str = "") -> None:
        self.address = address
        self.command = command
        super().__init__(message)


class InstrumentError(LabctlError):
    """The wire worked; the instrument refused, or answered something impossible."""

    def __init__(
        self, message: str, *, instrument: str = "", command: str = "", reply: str = ""
    ) -> None:
        self.instrument = instrument
        self.command = command
        self.reply = reply
        super().__init__(message)


class JournalError(LabctlError):
    """The node's journal cannot be written or is not what it says it is."""


class ArchiveError(LabctlError):
    """The record could not be kept, or what is kept could not be read."""


class StreamError(LabctlError):
    """A message on the stream that cannot be understood."""


class CommandError(LabctlError):
    """A command that may not be carried out now."""
