"""Every command and program in docs/data.md works on an archive with runs in it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from servers import not_installed
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from labctl.archive.database import open_engine, upgrade
from labctl.archive.inbox import GroupLimits
from labctl.archive.ingest import Ingest
from labctl.archive.service import ArchiveService
from labctl.cli.main import app
from labctl.stream import topics
from labctl.stream.connection import MqttConfig
from labctl.stream.events import ConditionChanged

DOCUMENT = Path(__file__).parents[2] / "docs" / "data.md"
LABSERVER = "postgresql://reader@labserver/labctl"
PACKAGES = {"sqlite3": "sqlite3", "psql": "postgresql-client", "mosquitto_sub": "mosquitto-clients",
            "mosquitto_pub": "mosquitto-clients"}  # fmt: skip
PATIENCE_S = 60


def fenced() -> list[tuple[str, str]]:
    found = re.findall(
        r"^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found
    return found


def blocks(language: str) -> list[str]:
    return [block for named, block in fenced() if named == language]


def commands(*programs: str) -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    return [line for line in lines if shlex.split(line)[0] in programs]


def fill(engine: Engine, lab: Any) -> None:
    journal = lab.Journal()
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in [1.0] * 7 + [0.7] * 3])
    lab.write_visits(journal)
    Ingest(engine).commit([*journal.payloads, b"noise"])


def program(name: str) -> str:
    """Where a program is: labctl's own beside this Python."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        not_installed(f"the program {name}", PACKAGES[name])
    return found


def run(folder: Path, line: str) -> str:
    name, *arguments = shlex.split(line)
    done = subprocess.run(
        [program(name), *arguments], cwd=folder, capture_output=True, check=False, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lab: Any) -> Path:
    """A folder with an archive.db and a labctl.toml."""
    made = tmp_path_factory.mktemp("document")
    engine = open_engine(f"sqlite:///{made / 'archive.db'}")
    upgrade(engine)
    fill(engine, lab)
    engine.dispose()
    (made / "labctl.toml").write_text("")
    return made


@pytest.fixture(scope="module")
def server(postgresql: Any, lab: Any) -> Iterator[str]:
    """The address of the same archive on PostgreSQL."""
    url = postgresql.new_database()
    engine = open_engine(url)
    upgrade(engine)
    fill(engine, lab)
    engine.dispose()
    yield url
    postgresql.drop_database(url)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Any:
    """What the document calls labserver, if a text speaks of it."""

    def replaced(said: str) -> str:
        if "@labserver" not in said:
            return said
        url = request.getfixturevalue("server")
        plain = url.replace("postgresql+psycopg", "postgresql")
        return said.replace(LABSERVER.replace("postgresql", "postgresql+psycopg"), url).replace(
            LABSERVER, plain
        )

    return replaced


def test_everything_that_is_fenced_is_tried_here() -> None:
    assert {language for language, _ in fenced()} == {"sql", "sh", "python"}
    known = ("sqlite3", "psql", "labctl", "mosquitto_sub", "mosquitto_pub")
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    assert sorted(commands(*known)) == sorted(lines)
    for name in known:
        assert commands(name), name


def test_every_query_of_the_document_finds_something(engine: Engine, lab: Any) -> None:
    fill(engine, lab)
    with engine.begin() as connection:
        for query in blocks("sql"):
            assert connection.execute(text(query)).all(), query


@pytest.mark.parametrize("line", commands("sqlite3", "psql"))
def test_every_command_of_a_database_works(folder: Path, address: Any, line: str) -> None:
    printed = run(folder, address(line))
    if "count(*)" in line:
        assert printed.strip() == "122"
    elif "SELECT" in line:
        assert "run-1" in printed
        assert "completed" in printed


def test_every_command_of_labctl_works_and_what_it_wrote_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = commands("labctl")
    run(folder, first)
    monkeypatch.chdir(folder)
    for line in others:
        done = CliRunner().invoke(app, shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
        assert done.stdout or "--out" in line
    names = {path.name for path in (folder / "exported").iterdir()}
    assert names == {f"run-{n}{what}.csv" for n in (1, 3) for what in ("", ".cycles", ".steps")}
    assert (folder / "run-1.bdf.csv").read_text().startswith("Test Time / s,Voltage / V,")
    for code in blocks("python"):
        if "duckdb" in code:
            assert "voltage_max_V" in run_python(folder, code)


def run_python(folder: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=folder, capture_output=True, check=False, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", [code for code in blocks("python") if "duckdb" not in code])
def test_every_program_of_the_document_runs(folder: Path, address: Any, code: str) -> None:
    assert run_python(folder, address(code))


async def test_what_labctl_tells_over_mqtt_is_heard_by_mosquitto_sub(
    mosquitto: Any, tmp_path: Path, lab: Any
) -> None:
    node = "lab-document"
    journal = lab.Journal(source=f"{node}-1")
    hours = [1.0] * 6 + [0.7] * 6
    lab.write_run(journal, [lab.CycleSpec(discharge_h=h) for h in hours], ended=False)
    full = ConditionChanged(
        run="", condition="disk", holds=True, message="almost full", unix_time_s=1.75e9
    )
    journal.events("", full)
    service = ArchiveService(
        f"sqlite:///{tmp_path / 'a.db'}", MqttConfig(url=mosquitto.url), name=node,
        limits=GroupLimits(wait_s=0.01, alarms_every_s=0.05),
    )  # fmt: skip
    latest = topics.ChannelLatest(
        instrument="neware-1", channel="1", run="run-1", state="running", cell="HEV-1", cycle=3,
        step=1, label="charge", unix_time_s=1.75e9, voltage_V=3.4, current_A=2e-4, charge_Ah=1e-4,
    )  # fmt: skip
    marker = topics.Marker(
        run="run-1", marker="pattern", direction="sent", visit=2, seq=9, cycle=1, test_time_s=9.0,
        unix_time_s=1.75e9,
    )  # fmt: skip
    of_the_node = {
        topics.latest_topic(node, "neware-1.1"): topics.encode(latest),
        topics.marker_topic(node, "run-1", "pattern"): topics.encode(marker),
    }
    serving = asyncio.create_task(service.run())
    try:
        async with aiomqtt.Client(mosquitto.host, mosquitto.port, timeout=PATIENCE_S) as client:
            for line in commands("mosquitto_sub"):
                topic, said = await _heard(client, mosquitto, line, of_the_node, journal.payloads)
                assert topic.startswith("labctl/v1/")
                assert "run" in json.loads(said), said
                assert not serving.done(), serving
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def _heard(
    client: aiomqtt.Client, broker: Any, line: str, live: dict[str, bytes], batches: list[bytes]
) -> tuple[str, str]:
    """What the command prints first, while the node says again and again what it has to say.

    Of this node: other tests leave retained messages of theirs at the same broker.
    """
    of_this_node = line.replace("labctl/v1/+/", "labctl/v1/lab-document/")
    assert of_this_node != line
    name, *arguments = shlex.split(_at(broker, of_this_node))
    process = await asyncio.create_subprocess_exec(
        program(name), *arguments, "-C", "1", "-W", str(PATIENCE_S), stdout=asyncio.subprocess.PIPE
    )
    ended = asyncio.create_task(process.communicate())
    while not ended.done():
        for topic, payload in live.items():
            await client.publish(topic, payload)
        for payload in batches:
            await client.publish(topics.batch_topic("lab-document"), payload, qos=1)
        await asyncio.wait([ended], timeout=0.3)
    heard = (await ended)[0].decode()
    assert process.returncode == 0, f"{line} heard {heard!r} and left with {process.returncode}"
    topic, _, said = heard.partition(" ")
    return topic, said


async def test_a_signal_of_mosquitto_pub_comes_to_the_node(mosquitto: Any, tmp_path: Path) -> None:
    async with aiomqtt.Client(mosquitto.host, mosquitto.port) as client:
        await client.subscribe(topics.all_signals("lab1"), qos=1)
        for line in commands("mosquitto_pub"):
            await asyncio.to_thread(run, tmp_path, _at(mosquitto, line))
            async with asyncio.timeout(PATIENCE_S):
                message = await anext(aiter(client.messages))
            assert topics.signal_of(str(message.topic)) == "diffractometer-ready"
            topics.decode_signal(bytes(message.payload))


def _at(broker: Any, line: str) -> str:
    assert "-h localhost" in line
    return line.replace("-h localhost", f"-h {broker.host} -p {broker.port}")
