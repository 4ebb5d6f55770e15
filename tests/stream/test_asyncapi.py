"""docs/asyncapi.yaml: what another program's author reads about the stream."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from labctl.stream import topics
from labctl.stream.asyncapi import TOPICS, as_yaml

FILE = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"


def published() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))
    return loaded


def test_the_document_is_what_the_code_says() -> None:
    assert FILE.read_text(encoding="utf-8") == as_yaml(), (
        "make it anew: python -m labctl.stream.asyncapi > docs/asyncapi.yaml"
    )


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("batch", topics.batch_topic("lab-1")),
        ("ack", topics.ack_topic("lab-1")),
        ("nodeState", topics.node_state_topic("lab-1")),
        ("latest", topics.latest_topic("lab-1", "rack1.21-1-1")),
        ("marker", topics.marker_topic("lab-1", "run-1", "pattern")),
        ("signal", topics.signal_topic("lab-1", "ready")),
        ("cycle", topics.cycle_topic("lab-1", "run-1")),
        ("alarm", topics.alarm_topic("lab-1", "run-1", "retention")),
        ("archiveState", topics.archive_state_topic("main")),
    ],
)
def test_every_topic_that_is_used_stands_in_the_document(name: str, topic: str) -> None:
    address = published()["channels"][name]["address"]
    assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", address), topic)
    assert set(published()["channels"]) == {each.name for each in TOPICS}


def test_every_reference_in_the_document_leads_somewhere() -> None:
    whole = published()

    def look(part: object) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                found: Any = whole
                for key in part["$ref"].removeprefix("#/").split("/"):
                    found = found[key]
            for each in part.values():
                look(each)
        elif isinstance(part, list):
            for each in part:
                look(each)

    look(whole)


def test_a_message_has_the_fields_that_its_schema_names() -> None:
    said = msgspec.json.decode(topics.encode(topics.Ack(source="s", watermark=3, ranges=((5, 6),))))
    schema = published()["components"]["schemas"]["Ack"]
    assert set(said) == set(schema["properties"])
    assert set(schema["required"]) <= set(said)
    assert said["ranges"] == [[5, 6]]
