"""``labctl init``: a first labctl.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.common import out
from labctl.errors import ConfigError, Problem

TEMPLATE = """\
# One PC of the laboratory. Paths are relative to this file.

[node]
name = "{name}"            # in topics, in the names of runs and in the archive: choose once
data = "data"              # journal and control socket; a local disk, not a network share

[mqtt]
url = "mqtt://127.0.0.1:1883"
# username = "labctl-daemon"
# password_file = "/etc/labctl/mqtt.password"
# ca_file = "/etc/labctl/ca.crt"          # with mqtts://

[archive]
url = "sqlite:///archive.db"
# url = "postgresql+psycopg://labctl@db.lab.example/labctl"
# pack_after = "90 d"      # readings of older runs go into Parquet files: 'labctl archive tidy'

# Whom to tell of alarms, beside 'labctl alarms' and the log ('labctl alarms test' tries it):
# [notifications]
# urls = ["ntfys://ntfy.lab.example/cycling"]      # apprise addresses: mail, chat, telephone
# urls_file = "notify.urls"                        # those with a password, one a line

[broker]
kind = "auto"              # what 'labctl up' starts; "none" where a broker runs already

# A rack of Neware channels behind a BTS 8 host:
# [instruments.rack1]
# driver = "neware_bts"
# host = "192.168.1.20"
# step_file_dir = "/mnt/bts/labctl"       # a folder that the BTS host can read, as seen from here
# step_file_dir_on_host = 'D:\\labctl'     # the same folder as the BTS host sees it
# utc_offset_s = 3600                     # what the BTS host's clock is ahead of UTC
"""


def init(
    name: Annotated[str, typer.Argument(help="What this PC is called, e.g. lab1.")],
    folder: Annotated[Path, typer.Option(help="Where to write labctl.toml.")] = Path(),
) -> None:
    """Write a labctl.toml to begin with; an existing one is left alone."""
    from labctl.stream.topics import check_node

    check_node(name)
    path = folder / "labctl.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=name))
    except FileExistsError:
        raise ConfigError([Problem("is there already and was not touched", str(path))]) from None
    except OSError as error:
        raise ConfigError([Problem(f"cannot be written: {error}", str(path))]) from error
    out.print(
        f"{path} is written. Put your instruments into it (labctl instruments scan --write {path} "
        "finds them), then: labctl up",
        highlight=False,
        soft_wrap=True,
    )
