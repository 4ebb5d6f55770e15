"""The JSON schema of a recipe, from the same declarations that check it.

Editors complete and explain keys with it (yaml-language-server reads draft 7). It is shipped as
``recipe.schema.json``; a recipe points to it in its first line.
"""

from __future__ import annotations

import json
from typing import Any

from labctl.protocols.alarms import DEFINITIONS, AlarmsFields
from labctl.protocols.conditions import ConditionFields
from labctl.protocols.limits import LimitsFields, StepLimitsFields
from labctl.protocols.structure import LONGEST_NAME, STRUCTURE
from labctl.protocols.techniques import TECHNIQUES
from labctl.protocols.written import Fields, RecordFields

Schema = dict[str, Any]

_VALUE: Schema = {
    "anyOf": [
        {"type": ["string", "number"]},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}},
    ]
}
_BOUND: Schema = {"type": ["string", "integer"]}
_PARAMETER: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "default": {
            **_VALUE,
            "description": "The value if none is given. Without it one must be.",
        },
        "from": {**_BOUND, "description": "The least that it may be."},
        "to": {**_BOUND, "description": "The most that it may be."},
        "example": {
            **_VALUE,
            "description": "A value to look at the recipe with, where there is no default.",
        },
        "about": {"type": "string", "description": "What it is, in words."},
    },
}


def recipe_schema() -> Schema:
    """The schema as a dictionary."""
    steps = {word: _step(word, technique.about) for word, technique in TECHNIQUES.items()}
    others = {f"step_{word}": _group(model) for word, model in STRUCTURE.items()}
    definitions: Schema = {
        "record": _group(RecordFields),
        **{name: _group(model) for name, model in DEFINITIONS.items()},
        "condition": _group(ConditionFields),
        "step_limits": _group(StepLimitsFields),
        "values": {
            "type": "object",
            "description": "Names of the other recipe's parameters, with values.",
            "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,39}$"},
            "additionalProperties": _VALUE,
        },
        **{f"{word}_keys": _group(technique.fields) for word, technique in TECHNIQUES.items()},
        **{f"step_{word}": step for word, step in steps.items()},
        **others,
        "steps": {
            "type": "array",
            "minItems": 1,
            "description": "What is done, from top to bottom.",
            "items": {
                "anyOf": [
                    *({"$ref": f"#/$defs/step_{word}"} for word in steps),
                    *({"$ref": f"#/$defs/{name}"} for name in others),
                ]
            },
        },
    }
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "labctl recipe",
        "type": "object",
        "required": ["recipe", "steps"],
        "additionalProperties": False,
        "properties": {
            "recipe": {
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST_NAME,
                "description": "The name of the recipe.",
            },
            "about": {"type": "string", "description": "What it is for, in a sentence."},
            "parameters": {
                "type": "object",
                "description": "Names with default values, used below as $name.",
                "propertyNames": {"pattern": "^[a-z][a-z0-9_]{0,39}$"},
                "additionalProperties": {"anyOf": [*_VALUE["anyOf"], _PARAMETER]},
            },
            "limits": _group(LimitsFields),
            "record": {
                "anyOf": [
                    {"type": "string", "examples": ["30 s"]},
                    {"$ref": "#/$defs/record"},
                ],
                "description": "When a reading is kept. If not written: as suits each step.",
            },
            "alarms": _group(AlarmsFields),
            "steps": {"$ref": "#/$defs/steps"},
        },
    }
    used = json.dumps([schema, definitions])
    schema["$defs"] = {
        name: one for name, one in definitions.items() if f'"#/$defs/{name}"' in used
    }
    return schema


def schema_text() -> str:
    """The schema as the text of ``recipe.schema.json``."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _step(word: str, about: str) -> Schema:
    keys = _keys(TECHNIQUES[word].fields)
    short = TECHNIQUES[word].short
    if short:
        one = _group(TECHNIQUES[word].fields)["properties"][short]
        keys = {"anyOf": [one, keys]}
    return {
        "type": "object",
        "required": [word],
        "additionalProperties": False,
        "properties": {word: {**keys, "description": about}},
    }


def _keys(model: type[Fields]) -> Schema:
    """The keys of a technique, and those that every technique has."""
    group = _group(model)
    limits = {
        "description": "Limits of this step, within those of the recipe.",
        "$ref": "#/$defs/step_limits",
    }
    return {**group, "properties": {**group["properties"], "limits": limits}}


def _group(model: type[Fields]) -> Schema:
    """A model's own schema without pydantic's titles and nulls."""
    whole = model.model_json_schema(by_alias=True)
    properties = {name: _plain(schema) for name, schema in whole["properties"].items()}
    group: Schema = {
        "type": "object",
        "description": whole.get("description", ""),
        "additionalProperties": False,
        "properties": properties,
    }
    if "required" in whole:
        group["required"] = whole["required"]
    return group


def _plain(schema: Schema) -> Schema:
    """Without titles, defaults and nulls; 'x-ref' names a definition, for pydantic knows none."""
    plain = {key: value for key, value in schema.items() if key not in {"title", "default"}}
    choices = [choice for choice in plain.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        del plain["anyOf"]
        plain = {**choices[0], **plain}
    elif choices:
        plain["anyOf"] = choices
    with_refs: Schema = _with_refs(plain)
    return with_refs


def _with_refs(part: Any) -> Any:  # noqa: ANN401
    if isinstance(part, list):
        return [_with_refs(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        ("$ref" if key == "x-ref" else key): (
            f"#/$defs/{value}" if key == "x-ref" else _with_refs(value)
        )
        for key, value in part.items()
    }
