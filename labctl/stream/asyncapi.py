"""The stream as an AsyncAPI 3.0 document, made of the topics and messages themselves.

    python -m labctl.stream.asyncapi > docs/asyncapi.yaml

AsyncAPI 3.0.0 specification; MQTT bindings 0.2.0.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML

from labctl.stream.batches import EventsBatch, SamplesBatch
from labctl.stream.topics import (
    Ack,
    AlarmState,
    ArchiveState,
    ChannelLatest,
    CycleSummary,
    Marker,
    NodeState,
    Signal,
)

_SCHEMAS: Final = "#/components/schemas/"
_JSON: Final = "application/json"
_BATCH: Final = "application/vnd.labctl.batch"


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table in :mod:`labctl.stream.topics`.

    sent_by: who sends on it; node, archive, or anyone.
    """

    name: str
    address: str
    sent_by: str
    qos: int
    retained: bool
    messages: tuple[type[msgspec.Struct], ...]
    content_type: str = _JSON


TOPICS: Final = (
    Topic("batch", "labctl/v1/{node}/batch", "node", 1, False, (SamplesBatch, EventsBatch), _BATCH),
    Topic("ack", "labctl/v1/{node}/ack", "archive", 1, True, (Ack,)),
    Topic("nodeState", "labctl/v1/{node}/state", "node", 1, True, (NodeState,)),
    Topic("latest", "labctl/v1/{node}/channel/{channel}/latest", "node", 0, True, (ChannelLatest,)),
    Topic("marker", "labctl/v1/{node}/marker/{run}/{marker}", "node", 1, False, (Marker,)),
    Topic("signal", "labctl/v1/{node}/signal/{signal}", "anyone", 1, False, (Signal,)),
    Topic("cycle", "labctl/v1/{node}/run/{run}/cycle", "archive", 1, True, (CycleSummary,)),
    Topic("alarm", "labctl/v1/{node}/alarm/{run}/{rule}", "archive", 1, True, (AlarmState,)),
    Topic("nodeAlarm", "labctl/v1/{node}/node-alarm/{rule}", "archive", 1, True, (AlarmState,)),
    Topic("archiveState", "labctl/v1/archive/{archive}/state", "archive", 1, True, (ArchiveState,)),
)

_PARAMETERS: Final = {
    "node": "Name of a node, as in its labctl.toml.",
    "archive": "Name of an archive.",
    "channel": "The instrument's name, a dot, and its own name of the channel.",
    "run": "A run's id.",
    "rule": "An alarm rule and what it is about.",
    "marker": "A marker's name, as in the recipe.",
    "signal": "A signal's name, as in the recipe.",
}

_BATCH_SAID: Final = (
    "'LCB1', the CRC-32 of the rest (4 bytes, little endian), and a MessagePack map that has this "
    "schema; bytes of a column are little endian, of the numpy type that stands beside them."
)


def document() -> dict[str, Any]:
    """The whole document, as plain dictionaries."""
    kinds = [kind for topic in TOPICS for kind in topic.messages]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS + "{name}")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "labctl",
            "version": "1",
            "description": "What nodes and archives of a laboratory say over MQTT. Everything but "
            "the batch is JSON; a message with a batch is the batch, or a parcel: LCP1, and then "
            "for each batch its length (4 bytes, little endian) and the batch. A number that is "
            "not known is null. Fields may be added within v1; unknown ones are to be passed over.",
        },
        "defaultContentType": _JSON,
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {f"send-{topic.name}": _operation(topic) for topic in TOPICS},
        "components": {
            "messages": {
                kind.__name__: _message(kind, topic) for topic in TOPICS for kind in topic.messages
            },
            "schemas": schemas,
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    names = [part[1:-1] for part in topic.address.split("/") if part.startswith("{")]
    return {
        "address": topic.address,
        "parameters": {name: {"description": _PARAMETERS[name]} for name in names},
        "messages": {
            kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}
            for kind in topic.messages
        },
    }


def _operation(topic: Topic) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "title": f"sent by {topic.sent_by}",
        "bindings": {
            "mqtt": {"qos": topic.qos, "retain": topic.retained, "bindingVersion": "0.2.0"}
        },
    }


def _message(kind: type[msgspec.Struct], topic: Topic) -> dict[str, Any]:
    said = " ".join((kind.__doc__ or "").split())
    if topic.content_type == _BATCH:
        said = f"{said} {_BATCH_SAID}"
    return {
        "name": kind.__name__,
        "contentType": topic.content_type,
        "description": said,
        "payload": {"$ref": f"{_SCHEMAS}{kind.__name__}"},
    }


def as_yaml() -> str:
    """The document as it stands in docs/."""
    yaml = YAML()
    yaml.width = 100
    yaml.representer.ignore_aliases = lambda _data: True
    written = io.StringIO()
    yaml.dump(document(), written)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


def main() -> None:
    """Print it."""
    sys.stdout.write(as_yaml())


if __name__ == "__main__":
    main()
