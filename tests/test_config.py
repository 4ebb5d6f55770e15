"""What an administrator gets wrong in labctl.toml is named with file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labctl.cli.init import TEMPLATE
from labctl.clock import RealClock
from labctl.drivers import build_driver
from labctl.errors import ConfigError
from labctl.settings import load_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "labctl.toml"
    path.write_text(text)
    return path


def problem(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(folder, text))
    return str(caught.value)


def test_an_empty_file_is_a_pc_with_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, ""))
    assert settings.node.name == "lab"
    assert settings.journal == tmp_path / "data" / "journal.db"
    assert settings.archive_url == f"sqlite:///{tmp_path}/archive.db"


def test_the_url_of_a_server_is_left_alone(tmp_path: Path) -> None:
    text = '[archive]\nurl = "postgresql+psycopg://lab@db/labctl"\n'
    assert load_settings(written(tmp_path, text)).archive_url.startswith("postgresql+psycopg://")


def test_instruments_keep_the_keys_of_their_drivers(tmp_path: Path) -> None:
    text = '[instruments.rack1]\ndriver = "neware_bts"\nhost = "10.0.0.7"\n'
    settings = load_settings(written(tmp_path, text))
    assert settings.instruments == {"rack1": {"driver": "neware_bts", "host": "10.0.0.7"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node]\nnam = 'x'\n", r"labctl.toml:2:1: unknown key 'nam'\n.*nam = 'x'(.|\n)*'name'"),
        ("[node]\nname = 7\n", r"labctl.toml:2:1: Expected `str`, got `int` in \[node.name\]"),
        ("[nodes]\n", r"labctl.toml:1:1: unknown key 'nodes'(.|\n)*did you mean 'node'"),
        ("[node\n", r"labctl.toml:1:6: Expected ']'"),
        ("[node]\nname = 'a/b'\n", r"\[node\] name: node 'a/b' cannot stand in a topic"),
        ("[node]\nspeed = 'quick'\n", r"\[node\] speed: speed 'quick' is neither"),
        ("[node]\npoll_s = 0.0\n", r"\[node\] poll_s must be above 0"),
        ("[node]\npoll_s = nan\n", r"\[node\] poll_s must be above 0"),
        ("[node]\npoll_s = inf\n", r"\[node\] poll_s must be above 0"),
        ("[instruments.'a/b']\ndriver = 'x'\n", r"\[instruments.a/b\] name 'a/b' cannot stand"),
        ("[simulators.'../x']\nkind = 'neware'\nconfig = 'x'\n", r"\[simulators.../x\] name"),
        ("[simulators.daemon]\nkind = 'neware'\nconfig = 'x'\n", r"'labctl up' has that name"),
        ("[mqtt]\nurl = 'http://x'\n", r"'http://x' is not mqtt://host:port"),
        ("[instruments.rack]\nhost = 'x'\n", r"\[instruments.rack\] names no driver"),
        ("[broker]\nkind = 'rabbit'\n", r"labctl.toml:2:1: Invalid enum value 'rabbit'"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    message = problem(tmp_path, text)
    assert re.search(said, message), message


def test_a_missing_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("labctl.settings.DEFAULT_FILES", (Path("labctl.toml"),))
    with pytest.raises(ConfigError, match="labctl init"):
        load_settings(None)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml")


def test_the_file_that_init_writes_can_be_read_with_its_examples(tmp_path: Path) -> None:
    text = TEMPLATE.format(name="lab1")
    assert load_settings(written(tmp_path, text)).node.name == "lab1"
    uncommented = "".join(
        line.removeprefix("# ") if re.match(r"# (\[|\w+ = )", line) else line
        for line in text.splitlines(keepends=True)
    ).replace('url = "sqlite:///archive.db"\n', "")
    settings = load_settings(written(tmp_path, uncommented))
    own = dict(settings.instruments["rack1"])
    build_driver(str(own.pop("driver")), own, name="rack1", clock=RealClock())
