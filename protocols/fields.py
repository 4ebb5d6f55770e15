"""A group of keys read into its model, and pydantic's complaints put into a person's words."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from labctl.protocols.source import Listing, Mapping, Node, Problems, Text, shortened
from labctl.protocols.written import Fields, through
from labctl.units import nearest

F = TypeVar("F", bound=Fields)


def read_fields(
    model: type[F],
    node: Node,
    at: Text,
    problems: Problems,
    *,
    short: str = "",
    also: tuple[str, ...] = (),
) -> F | None:
    """The fields of ``node``, or None with what is wrong noted in ``problems``.

    Args:
        model: which keys there are.
        node: the group; a single value stands for the key ``short``, where there is one.
        at: the key that the group belongs to, to be named and pointed at.
        problems: takes the mistakes.
        short: see ``node``.
        also: keys that the group may have and that somebody else reads.
    """
    if isinstance(node, Text) and short:
        raw: object = {short: node}
    elif isinstance(node, Mapping):
        raw = _raw(node)
    elif isinstance(node, Text) and not node.value:
        raw = {}
    else:
        shape = "a list" if isinstance(node, Listing) else "one value"
        keys = ", ".join(f"'{key}'" for key in _keys(model))
        problems.add(
            node.place,
            f"'{at.value}' takes a group of keys, not {shape}",
            f"its keys are {keys}",
        )
        return None
    try:
        return model.model_validate(raw)
    except ValidationError as errors:
        for error in errors.errors(include_url=False, include_input=False):
            _note(error, model, node, at, problems, also)
    return None


def _raw(node: Node) -> object:
    if isinstance(node, Text):
        return node
    if isinstance(node, Listing):
        return [_raw(item) for item in node.items]
    return {key.value: _raw(value) for key, value in node.entries}


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _note(
    error: ErrorDetails,
    model: type[BaseModel],
    node: Node,
    at: Text,
    problems: Problems,
    also: tuple[str, ...],
) -> None:
    path, kind = list(error["loc"]), error["type"]
    if kind == "extra_forbidden":
        owner, inner, name = _owner(model, node, at, path[:-1])
        key = inner.key(str(path[-1])) if isinstance(inner, Mapping) else None
        keys = [*_keys(owner), *(also if owner is model else ())]
        better = nearest(str(path[-1]), keys)
        known = "its keys are " + ", ".join(f"'{known}'" for known in keys)
        problems.add(
            (key or name).place,
            f"'{shortened(str(path[-1]))}' is not a key of '{name.value}'",
            f"did you mean '{better}'?" if better else known,
        )
    elif kind == "missing":
        _, inner, name = _owner(model, node, at, path[:-1])
        problems.add(name.place, f"'{name.value}' needs '{path[-1]}'", _how(model, path))
    else:
        target = _walk(node, at, path)
        message, suggestion = error["msg"], ""
        if kind == "recipe":
            said = error.get("ctx", {})
            message, suggestion = said["message"], said["suggestion"]
        elif kind in {"model_type", "dict_type", "model_attributes_type"}:
            word = next((str(part) for part in reversed(path) if isinstance(part, str)), at.value)
            message, suggestion = f"'{word}' takes a group of keys", _HOW.get(word, "")
        place = target.place
        came_through = through(target) if isinstance(target, Text) else ""
        if isinstance(target, Text) and not target.value and not target.quoted:
            group = _walk(node, at, path[:-1])
            written = group.key(str(path[-1])) if isinstance(group, Mapping) else None
            place = (written or at).place
        problems.add(place, f"{message}{came_through}", suggestion)


def _owner(
    model: type[BaseModel], node: Node, at: Text, path: list[Any]
) -> tuple[type[BaseModel], Node, Text]:
    """The model, the group and the key of the group that ``path`` leads to."""
    name = at
    for part in path:
        if isinstance(part, int):
            if isinstance(node, Listing):
                node = node.items[part]
            continue
        if isinstance(node, Mapping):
            name = node.key(part) or name
            node = node.get(part) or node
        model = _model_of(model, part) or model
    return model, node, name


def _model_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if (field.alias or name) == key:
            return next(_models_in(field.annotation), None)
    return None


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _walk(node: Node, at: Text, path: list[Any]) -> Node:
    for part in path:
        if isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        elif isinstance(node, Mapping) and isinstance(part, str):
            node = node.get(part) or at
    return node


_HOW = {
    "do": "write 'do:' and below it a list of steps",
    "in": "write for example 'in: [0.2C, 0.5C, 1C]'",
    "then": "write 'then:' and below it a list of steps",
    "if": "write for example 'if: {ended by: voltage}'",
    "until": "write for example 'until: {retention: below 80 %, of: cycle 3}'",
}


def _how(model: type[BaseModel], path: list[Any]) -> str:
    examples = _properties(model).get(str(path[0]), {}).get("examples", [])
    if examples and len(path) == 1:
        return f"write for example '{path[-1]}: {examples[0]}'"
    return _HOW.get(str(path[-1]), "")


@functools.cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties
