"""Where a step stands, and the values of the names that it uses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from labctl.protocols.includes import Library
from labctl.protocols.limits import Fence
from labctl.protocols.parameters import BROKEN, Scope, as_text
from labctl.protocols.source import Listing, Mapping, Node, Place, Problems, Text, shortened
from labctl.protocols.written import Range, Written
from labctl.units import Amount, nearest

MOST_EXPANDED_NODES = 200_000
_INSIDE = re.compile(r"\$([a-z][a-z0-9_]*)")
_PARTS = re.compile(r"(?:below|above) \$[a-z][a-z0-9_]*|.*\.\..*")


class UnknownName(Exception):  # noqa: N818
    """A $name that is not known was noted; what holds it cannot be read."""


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a step.

    inside: 'loop', 'branch', or '' for the recipe itself. left: takes the 'leave's of the innermost
    loop, None if there is none. in_first: in the steps of that loop's first pass.
    """

    in_cycle: bool = False
    visits: int = 1
    depth: int = 0
    inside: str = ""
    left: list[Place] | None = None
    in_first: bool = False


@dataclass(slots=True)
class Shared:
    """What one recipe and all that it includes have in common while they are read."""

    problems: Problems
    library: Library
    steps: int = 0
    nodes: int = 0
    visits: int = 0

    def spend(self, nodes: int, place: Place) -> None:
        """Count nodes that were put in place; too many of them end the reading."""
        self.nodes += nodes
        if self.nodes > MOST_EXPANDED_NODES:
            raise self.problems.stop(
                place, "the 'for' loops unroll to too much", "use shorter lists"
            )


@dataclass(frozen=True, slots=True)
class Level:
    """The limits of the recipe around: what holds, and the voltages as they are written."""

    fence: Fence = Fence()  # noqa: RUF009
    voltage: Written[Range[Amount]] | None = None


@dataclass(slots=True)
class Names:
    """Puts values in place of names, and remembers which were used."""

    shared: Shared
    used: set[str] = field(default_factory=set)

    def put_in(self, node: Node, scope: Scope) -> Node:
        """``node`` with every $name replaced by its value.

        Raises:
            UnknownName: a name that is not known was noted.
        """
        self.shared.spend(1, node.place)
        if isinstance(node, Listing):
            return replace(node, items=tuple(self.put_in(item, scope) for item in node.items))
        if isinstance(node, Mapping):
            entries = tuple((key, self.put_in(value, scope)) for key, value in node.entries)
            return replace(node, entries=entries)
        if node.value.startswith("$") and ".." not in node.value:
            return _named(self._value(node, node.value[1:], scope), node.value[1:], node.place)
        if "$" in node.value and _PARTS.fullmatch(node.value):
            return replace(
                node,
                value=_INSIDE.sub(
                    lambda match: as_text(self._value(node, match[1], scope)), node.value
                ),
            )
        return node

    def _value(self, node: Text, name: str, scope: Scope) -> Node:
        if name not in scope:
            better = nearest(name, scope)
            self.shared.problems.add(
                node.place,
                f"'{shortened('$' + name)}' is neither a parameter nor the name of a 'for'",
                f"did you mean '${better}'?" if better else "write it under 'parameters'",
            )
            raise UnknownName
        self.used.add(name)
        if scope[name] is BROKEN:
            raise UnknownName
        return scope[name]


def key_of(node: Mapping, key: str) -> Text:
    """The key itself, or a stand-in at the first line where it is not written."""
    return node.key(key) or Text(key, Place(1, 1, file=node.place.file))


def _named(node: Node, name: str, used: Place) -> Node:
    if isinstance(node, Listing):
        return replace(node, items=tuple(_named(item, name, used) for item in node.items))
    if isinstance(node, Text):
        place = node.place if node.place.line else used
        return replace(node, name=name, used=used, place=place)
    return node
