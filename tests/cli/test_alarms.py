"""``labctl alarms`` as a person types it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from labctl.archive.database import open_engine, upgrade
from labctl.archive.ingest import Ingest
from labctl.cli import alarms
from labctl.errors import ArchiveError, CommandError
from labctl.stream.batches import encode_events
from labctl.stream.events import ConditionChanged, RunCreated, RunStateChanged

runner = CliRunner()


def created(run: str, cell: str) -> RunCreated:
    return RunCreated(
        run=run, cell=cell, instrument="rack1", channel="1", recipe_name="r", recipe_text="r",
        recipe_sha256="ab", program=b"", active_mass_g=1e-3, one_C_mA_per_g=100.0, actor="mia",
        labctl_version="1", unix_time_s=1.8e9,
    )  # fmt: skip


def condition(run: str, name: str, at_s: float) -> ConditionChanged:
    return ConditionChanged(
        run=run, condition=name, holds=True, message=f"[it] is {name}", unix_time_s=1.8e9 + at_s
    )


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An archive with an alarm about a run, one that tripped, and one about a node."""
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path / 'a.db'}"
    (tmp_path / "labctl.toml").write_text(f'[archive]\nurl = "{address}"\n')
    engine = open_engine(address)
    upgrade(engine)
    events = [
        ("run-1", [created("run-1", "HEV-1"), condition("run-1", "temperature-lost", 1)]),
        ("run-2", [created("run-2", "HEV-2")]),
        ("run-2", [RunStateChanged(run="run-2", state="tripped", reason="hot", unix_time_s=2e9)]),
        ("", [condition("", "disk", 2)]),
    ]
    payloads = [
        encode_events("lab1-7c", number, run, said)
        for number, (run, said) in enumerate(events, start=1)
    ]
    Ingest(engine).commit(payloads, ["lab1"] * len(payloads))
    engine.dispose()
    return address


def typed(*words: str) -> Result:
    return runner.invoke(alarms.app, list(words))


def listed(*words: str) -> list[dict[str, Any]]:
    found = typed("list", "--json", *words)
    assert found.exit_code == 0, found.output
    return list(json.loads(found.stdout))


def test_the_alarms_that_stand_are_a_table_with_the_most_urgent_first(url: str) -> None:
    lines = typed("list").stdout.splitlines()
    assert re.split(r"  +", lines[0].strip())[:4] == ["alarm", "priority", "rule", "of"]
    assert [re.split(r"  +", line.strip())[1:4] for line in lines[1:]] == [
        ["high", "tripped", "cell HEV-2"],
        ["high", "disk", "node lab1"],
        ["medium", "temperature-lost", "cell HEV-1"],
    ]
    assert "latched" in lines[1]
    assert "[it] is disk" in lines[2]


@pytest.mark.parametrize(
    ("words", "rules"),
    [
        ((), ["tripped", "disk", "temperature-lost"]),
        (("--cell", "HEV-1"), ["temperature-lost"]),
        (("--run", "run-2"), ["tripped"]),
        (("--run", "nope"), []),
    ],
)
def test_a_list_is_of_one_run_or_cell_where_asked_for(
    url: str, words: tuple[str, ...], rules: list[str]
) -> None:
    assert [one["rule"] for one in listed(*words)] == rules


def test_a_list_for_programs_has_everything_and_null_for_what_is_not_known(url: str) -> None:
    [lost] = listed("--cell", "HEV-1")
    assert lost["alarm_number"] == 1
    assert lost["run_id"] == "run-1"
    assert (lost["value"], lost["shelved_until_unix_s"], lost["active"]) == (None, None, True)


def test_an_alarm_is_acknowledged_and_then_listed_with_all_only(url: str) -> None:
    found = typed("ack", "1", "3", "--actor", "mia", "--note", "seen")
    assert found.exit_code == 0
    assert "alarm 1 of cell HEV-1 is acknowledged" in found.stdout
    assert "alarm 3 of node lab1 is acknowledged" in found.stdout
    assert typed("reset", "2", "--reason", "fan", "--actor", "mia").exit_code == 0
    assert [one["rule"] for one in listed()] == ["disk", "temperature-lost"]
    assert len(listed("--all")) == 3


def test_one_number_that_is_wrong_does_not_keep_the_others_from_it(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = typed("ack", "77", "2", "1", "--actor", "mia")
    assert found.exit_code == 1
    assert {one["alarm_number"]: one["state"] for one in listed()} == {
        1: "acknowledged", 2: "latched", 3: "unacknowledged",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        ("ack 77", ArchiveError, "there is no alarm 77"),
        ("show 77", ArchiveError, "there is no alarm 77"),
        ("ack 2", CommandError, "alarm 2: an alarm that is latched .* it can take 'reset'"),
        ("unshelve 1", CommandError, "alarm 1: an alarm that is unacknowledged cannot take"),
        ("reset 1 --reason x", CommandError, "cannot take 'reset'; it can take 'acknowledge'"),
        ("back-in-service 1", CommandError, "cannot take 'put-back-in-service'"),
    ],
)
def test_what_cannot_be_done_says_why_and_what_can(
    url: str, words: str, error: type[Exception], said: str
) -> None:
    found = typed(*words.split(" "))
    assert isinstance(found.exception, error)
    assert re.search(said, str(found.exception))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shelve", "1", "--for", "8"), "'8' has no unit"),
        (("shelve", "1", "--for", "8 V"), "is a voltage"),
        (("shelve", "1"), "--for"),
        (("reset", "2"), "--reason"),
        (("out-of-service", "1"), "--reason"),
        (("ack", "one"), "integer"),
    ],
)
def test_what_is_typed_wrong_is_a_usage_error(url: str, words: tuple[str, ...], said: str) -> None:
    found = typed(*words)
    assert found.exit_code == 2
    assert said in re.sub(r"[│\s]+", " ", found.output)


def test_a_shelved_alarm_says_until_when_by_whom_and_why(url: str) -> None:
    found = typed("shelve", "1", "--for", "8 h", "--note", "[known]", "--actor", "mia")
    assert re.search(r"is shelved until 20\d\d-", found.stdout)
    assert re.search(r"shelved until 20.* by mia \(\[known\]\)", typed("list").stdout)
    [alarm] = listed("--cell", "HEV-1")
    assert alarm["aside_reason"] == "[known]"
    assert typed("unshelve", "1").exit_code == 0
    assert listed("--cell", "HEV-1")[0]["state"] == "unacknowledged"


def test_an_alarm_is_taken_out_of_service_and_put_back(url: str) -> None:
    assert "is out-of-service" in typed("out-of-service", "3", "--reason", "test PC").stdout
    assert "is unacknowledged" in typed("back-in-service", "3", "--note", "done").stdout


def test_an_alarm_is_shown_with_everything_that_became_of_it(url: str) -> None:
    typed("ack", "1", "--actor", "mia", "--note", "[clip] is loose")
    shown = typed("show", "1").stdout
    assert "alarm 1: temperature-lost of cell HEV-1 in run run-1, medium" in shown
    assert "acknowledged; its condition holds" in shown
    assert re.search(r"acknowledge +acknowledged +mia +\[clip\] is loose", shown)
    found = json.loads(typed("show", "1", "--json").stdout)
    assert [one["trigger"] for one in found["events"]] == ["raise", "acknowledge"]


@pytest.fixture
def addressee() -> Iterator[tuple[int, list[str]]]:
    """The port of an HTTP server, and the titles that it was told."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append(said["title"])
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1], heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_test_reaches_every_address_and_says_which_did_not_answer(
    url: str, tmp_path: Path, addressee: tuple[int, list[str]]
) -> None:
    port, heard = addressee
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "urls").write_text(f"json://mia:hunter2@127.0.0.1:{port}/\n")
    (tmp_path / "labctl.toml").write_text(
        f'[notifications]\nurls_file = "secret/urls"\n'
        f'heartbeat_url = "http://127.0.0.1:{port}/ping"\n'
    )
    found = typed("test")
    assert found.exit_code == 0, found.output
    assert heard == ["labctl: test", "/ping"]
    assert found.stdout.count("delivered") == 2
    assert "hunter2" not in found.output
    (tmp_path / "labctl.toml").write_text('[notifications]\nurls = ["json://127.0.0.1:1/"]\n')
    assert typed("test").exit_code == 1
    (tmp_path / "labctl.toml").write_text("")
    assert "no address" in typed("test").stdout
