"""Who may say and hear what on the broker, made of the topics themselves.

    python -m labctl.stream.access > systemd/labctl.acl

Four users: nobody needs another, and none can do another's work. A node that is taken over cannot
acknowledge in the archive's name; a screen cannot start anything.
"""

from __future__ import annotations

import sys
from typing import Final

from labctl.stream.asyncapi import TOPICS

DAEMON: Final = "labctl-daemon"
ARCHIVE: Final = "labctl-archive"
READER: Final = "labctl-reader"
INSTRUMENT: Final = "labctl-instrument"

_WHO: Final = {
    DAEMON: "nodes",
    ARCHIVE: "archives",
    READER: "screens, notebooks, dashboards: they hear everything and say nothing",
    INSTRUMENT: "a diffractometer or another program that works in step with a run",
}
_SAYS: Final = {"node": DAEMON, "archive": ARCHIVE, "anyone": INSTRUMENT}
_HEARS: Final = {
    DAEMON: ("signal", "ack", "archiveState"),
    ARCHIVE: ("batch", "nodeState"),
    READER: tuple(topic.name for topic in TOPICS),
    INSTRUMENT: ("marker", "latest", "nodeState"),
}


def acl() -> str:
    """The access list, for Mosquitto's ``acl_file``."""
    parts = ["# install as /etc/mosquitto/labctl.acl\n"]
    for user, who in _WHO.items():
        lines = [f"\n# {who}", f"user {user}"]
        for topic in TOPICS:
            levels = ("+" if level.startswith("{") else level for level in topic.address.split("/"))
            pattern = "/".join(levels)
            if _SAYS[topic.sent_by] == user:
                lines.append(f"topic write {pattern}")
            if topic.name in _HEARS[user]:
                lines.append(f"topic read {pattern}")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def main() -> None:
    """Print it."""
    sys.stdout.write(acl())


if __name__ == "__main__":
    main()
