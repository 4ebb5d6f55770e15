"""Fixtures for all tests: real brokers and databases, and no task left behind.

``servers.py`` and ``stream_peers.py`` beside this file are importable in every test by these names.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _locks_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Simulated instruments have serial numbers that those of another test session have too."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LABCTL_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        yield


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


servers = _load("servers")
_load("stream_peers")


@pytest.fixture(autouse=True)
def no_task_left_behind(request: pytest.FixtureRequest) -> None:
    """An asynchronous test that ends while a task of its own still runs fails."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_tasks_are_watched")


@pytest.fixture
async def _tasks_are_watched() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left: set[asyncio.Task[Any]] = set()
    for _ in range(20):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    names = sorted(f"{task.get_name()}: {task.get_coro()}" for task in left)
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    pytest.fail("tasks still run after the test:\n" + "\n".join(names))


@pytest.fixture(scope="session")
def server_loop() -> Iterator[Any]:
    """An event loop in a thread, in which the brokers of the whole session live."""
    thread = servers.LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def mosquitto(server_loop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Mosquitto for the whole session: ``.url``, ``.host``, ``.port``. Not to be killed."""
    yield from _broker(server_loop, "mosquitto", tmp_path_factory)


@pytest.fixture(scope="session")
def embedded_broker(server_loop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An embedded broker for the whole session: ``.url``, ``.host``, ``.port``."""
    yield from _broker(server_loop, "amqtt", tmp_path_factory)


def _broker(server_loop: Any, kind: str, factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = servers.server_of_kind(kind, factory.mktemp(kind))
    server_loop.run(server.start())
    yield server
    server_loop.run(server.stop())


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest) -> Any:
    """A broker of each kind in turn, shared with other tests: use names of your own in topics."""
    return request.getfixturevalue(
        "mosquitto" if request.param == "mosquitto" else "embedded_broker"
    )


@pytest.fixture(params=["mosquitto", "amqtt"])
async def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """A broker of each kind in turn, for this test alone: it may kill and start it again."""
    server = servers.server_of_kind(request.param, tmp_path / "broker")
    async with server:
        yield server


@pytest.fixture
async def own_mosquitto(tmp_path: Path) -> AsyncIterator[Any]:
    """A Mosquitto for this test alone: it may kill it, freeze it and start it again."""
    async with servers.MosquittoServer(tmp_path / "broker") as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A PostgreSQL server for the whole session."""
    with servers.temporary_folder() as directory:
        server = servers.PostgresqlServer(directory)
        server.create()
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgresql_url(postgresql: Any) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh PostgreSQL database."""
    url = postgresql.new_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def archive_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The SQLAlchemy URL of a fresh database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'archive.sqlite'}"
    return str(request.getfixturevalue("postgresql_url"))
