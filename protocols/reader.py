"""From the text's nodes to the tree of a recipe: parameters put in, 'for' unrolled, all checked.

What comes out is typed and knows where each value was written. It knows no cell.
"""

from __future__ import annotations

from collections.abc import Mapping as Table

from labctl.protocols.alarms import AlarmsFields, check_alarms
from labctl.protocols.checks import check_conditions
from labctl.protocols.fields import F, read_fields
from labctl.protocols.includes import Included, Library
from labctl.protocols.limits import Fence, LimitsFields, narrowed
from labctl.protocols.names import Around, Level, Shared, UnknownName, key_of
from labctl.protocols.parameters import BROKEN, Parameter, put_given
from labctl.protocols.source import Mapping, Node, Place, Problems, Text, shortened
from labctl.protocols.steps import StepReader
from labctl.protocols.structure import (
    LONGEST_NAME,
    SECTIONS,
    WrittenNode,
    WrittenRecipe,
    cycles_of,
)
from labctl.protocols.written import RecordFields, note
from labctl.units import nearest


def read_structure(
    root: Mapping,
    parameters: Table[str, Parameter],
    given: Table[str, Node],
    problems: Problems,
    library: Library,
) -> WrittenRecipe | None:
    """The whole recipe with the values of ``given``; None with everything wrong noted."""
    shared = Shared(problems, library)
    written = _read(root, parameters, given, shared, Level(), Around(), ("",))
    if problems.found or written is None:
        return None
    check_conditions(written, problems)
    return None if problems.found else written


def _read_included(
    included: Included,
    given: Table[str, Node],
    shared: Shared,
    level: Level,
    around: Around,
    chain: tuple[str, ...],
) -> WrittenRecipe | None:
    return _read(included.root, included.parameters, given, shared, level, around, chain)


def _read(
    root: Mapping,
    parameters: Table[str, Parameter],
    given: Table[str, Node],
    shared: Shared,
    level: Level,
    around: Around,
    chain: tuple[str, ...],
) -> WrittenRecipe | None:
    problems = shared.problems
    before = len(problems.found)
    _check_sections(root, problems)
    scope = put_given(parameters, given, problems)
    reader = StepReader(shared, scope, level, _read_included, chain)
    name = _plain_text(root, "recipe", problems)
    if not name:
        problems.add(
            key_of(root, "recipe").place, "the recipe has no name", "write 'recipe: a name'"
        )
    about = _plain_text(root, "about", problems)
    limits = _section(reader, root, "limits", LimitsFields)
    record = _section(reader, root, "record", RecordFields, short="every")
    alarms = _section(reader, root, "alarms", AlarmsFields)
    if limits is not None:
        _narrow(reader, limits)
    key = key_of(root, "steps")
    node = root.get("steps")
    steps: tuple[WrittenNode, ...] = ()
    if node is None:
        problems.add(
            Place(1, 1, file=chain[-1]), "the recipe has no steps", "write 'steps:' and a list"
        )
    else:
        right = len(problems.found)
        steps = reader.steps(node, key, dict(scope), around)
        if alarms is not None and len(problems.found) == right and len(chain) == 1:
            check_alarms(alarms, cycles_of(steps).most, problems)
    if len(problems.found) > before:
        return None
    _check_used(parameters, reader.names.used, problems)
    return WrittenRecipe(
        name,
        about,
        limits or LimitsFields(),
        record,
        alarms or AlarmsFields(),
        steps,
        key,
        parameters,
        chain[-1],
    )


def _check_sections(root: Mapping, problems: Problems) -> None:
    for key, _ in root.entries:
        if key.value not in SECTIONS:
            better = nearest(key.value, SECTIONS)
            problems.add(
                key.place,
                f"'{shortened(key.value)}' is not a part of a recipe",
                f"did you mean '{better}'?" if better else f"its parts are {', '.join(SECTIONS)}",
            )


def _section(
    reader: StepReader, root: Mapping, key: str, model: type[F], short: str = ""
) -> F | None:
    """A top-level group, None if it is not written or wrong."""
    node = root.get(key)
    if node is None:
        return None
    try:
        put_in = reader.names.put_in(node, reader.scope)
    except UnknownName:
        return None
    return read_fields(model, put_in, key_of(root, key), reader.problems, short=short)


def _narrow(reader: StepReader, limits: LimitsFields) -> None:
    """Bring what the recipe's own limits say to the checks of its steps."""
    problems = reader.problems
    fence: Fence = narrowed(
        reader.level.fence,
        limits,
        lambda text, message, suggestion: note(problems, text, message, suggestion),
        None,
    )
    reader.level = Level(fence, limits.voltage or reader.level.voltage)
    reader.sheet.voltage = reader.level.voltage


def _plain_text(root: Mapping, key: str, problems: Problems) -> str:
    node = root.get(key)
    if node is None:
        return ""
    if not isinstance(node, Text):
        problems.add(key_of(root, key).place, f"'{key}' takes a text")
        return "?"
    if key == "recipe" and len(node.value) > LONGEST_NAME:
        problems.add(node.place, f"the name is longer than {LONGEST_NAME} characters")
    return node.value.strip()


def _check_used(parameters: Table[str, Parameter], used: set[str], problems: Problems) -> None:
    for name, parameter in parameters.items():
        if name not in used and parameter.default is not BROKEN:
            problems.add(
                parameter.name.place,
                f"the parameter '{name}' is never used",
                f"write '${name}' where it is meant, or delete it",
            )
