"""A Mosquitto as a child process, beside other programs that want its port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from servers import MosquittoServer, not_installed

from labctl.errors import ConfigError
from labctl.stream.mosquitto import (
    Mosquitto,
    MosquittoOptions,
    find_mosquitto,
    free_port,
    ports_kept,
)


@pytest.mark.parametrize(
    ("given_out", "ports"),
    [
        ("32768\t60999\n", range(10_000, 32_768)),
        ("10000\t50000\n", range(50_001, 65_536)),
        ("1024\t65535\n", range(10_000, 32_768)),
        ("nonsense\n", range(10_000, 32_768)),
    ],
)
def test_a_free_port_is_none_that_the_system_gives_to_an_outgoing_connection(
    tmp_path: Path, given_out: str, ports: range
) -> None:
    file = tmp_path / "ip_local_port_range"
    file.write_text(given_out)
    assert ports_kept(file) == ports


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        drawn = iter([port, port, free_port()])
        monkeypatch.setattr("random.choice", lambda _: next(drawn))
        assert free_port() != port


async def test_a_broker_whose_port_was_taken_a_moment_ago_does_not_pass_for_the_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port was free when it was looked at, and somebody else answers when the broker begins."""
    program = find_mosquitto()
    if program is None:
        not_installed("MOSQUITTO", "mosquitto")
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        broker = Mosquitto(MosquittoOptions(port=port), tmp_path)
        looked_at: list[int] = []

        async def accepts(host: str, port: int) -> bool:
            looked_at.append(port)
            if len(looked_at) == 1:
                return False
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True

        monkeypatch.setattr("labctl.stream.mosquitto._accepts", accepts)
        with pytest.raises(ConfigError, match="it ended with code"):
            await broker.start()
        assert broker.pid is None


async def test_the_tests_own_broker_takes_another_port_where_its_own_was_taken(
    tmp_path: Path,
) -> None:
    server: Any = MosquittoServer(tmp_path / "broker")
    with socket.create_server((server.host, server.port)):
        taken = server.port
        async with server:
            assert server.port != taken
            assert server.url.endswith(f":{server.port}")
            again = server.port
            await server.kill()
            await server.start()
            assert server.port == again, "clients find it where it was"
