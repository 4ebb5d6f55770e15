"""People are told of alarms once, together, again, by whichever archive; against real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from labctl.archive.alarm_commands import acknowledge, shelve, unshelve
from labctl.archive.database import open_engine
from labctl.archive.ingest import Ingest
from labctl.archive.keeping_alarms import Seen, keep
from labctl.archive.notices import can_commit, claim, write_down
from labctl.archive.notifying import Notifier
from labctl.archive.sending import AppriseSender, Sender, digest_of, senders_of
from labctl.archive.writer import ProcessWriter
from labctl.clock import ManualClock
from labctl.errors import ConfigError
from labctl.stream.events import ConditionChanged, RunStateChanged


class Addressee:
    """An HTTP server that people look at. ``status`` is what it answers."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        self.hold: threading.Event | None = None
        self.waits = threading.Event()
        addressee = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if addressee.hold is not None:
                    addressee.waits.set()
                    addressee.hold.wait(20.0)
                addressee.heard.append(said)
                self._answer()

            def do_GET(self) -> None:
                addressee.asked += 1
                self._answer()

            def _answer(self) -> None:
                self.send_response(addressee.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/alarms"

    @property
    def titles(self) -> list[str]:
        return [said["title"] for said in self.heard]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def addressee() -> Iterator[Addressee]:
    server = Addressee()
    yield server
    server.close()


@pytest.fixture
def other_addressee() -> Iterator[Addressee]:
    server = Addressee()
    yield server
    server.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Telling:
    """A notifier as an archive has one; a new one stands for a restart."""

    def __init__(self, engine: Engine, clock: ManualClock, *urls: str, heart: str = "") -> None:
        self.healthy = True
        self._engine = engine
        self._clock = clock
        senders: dict[str, Sender] = dict(senders_of(urls))
        self.notifier = Notifier(
            senders, clock=clock, do=self._do, look=self._look, healthy=self._can_commit,
            heartbeat_url=heart,
        )  # fmt: skip

    async def _do(self, work: Callable[[Engine], Any]) -> Any:
        return await asyncio.to_thread(work, self._engine)

    async def _look(self, look: Callable[[Connection], Any]) -> Any:
        def read() -> Any:
            with self._engine.begin() as connection:
                return look(connection)

        return await asyncio.to_thread(read)

    async def _can_commit(self) -> bool:
        return self.healthy and await asyncio.to_thread(can_commit, self._engine)

    async def turns(self, *pauses_s: float) -> int:
        """A turn now and one after each pause; how many deliveries were tried."""
        tried = await self.notifier.turn()
        for pause_s in pauses_s:
            await self._clock.advance(pause_s)
            tried += await self.notifier.turn()
        return tried


class Story:
    """A run, and what its node says of it."""

    def __init__(self, engine: Engine, lab: Any) -> None:
        self._ingest = Ingest(engine)
        self._journal = lab.Journal(source="lab1-7c")
        lab.write_run(self._journal, [lab.CycleSpec()] * 2, ended=False)
        self._ingest.commit(self._journal.payloads, ["lab1"] * len(self._journal.payloads))

    def tell(self, *events: Any) -> None:
        self._journal.events("run-1", *events)
        self._ingest.commit(self._journal.payloads[-1:], ["lab1"])

    def condition(self, name: str, *, holds: bool = True) -> None:
        self.tell(
            ConditionChanged(
                run="run-1", condition=name, holds=holds, message=f"it is {name}", unix_time_s=2e9
            )
        )


@pytest.fixture
def story(engine: Engine, lab: Any) -> Story:
    return Story(engine, lab)


def deliveries(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT notification_number, attempts, delivered_unix_s IS NOT NULL, problem "
                "FROM deliveries ORDER BY 1, target"
            )
        )
        return [(*row[:2], bool(row[2]), row[3]) for row in rows]


async def test_alarms_of_ten_seconds_are_one_message_and_are_said_once(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    telling = Telling(engine, clock, addressee.url)
    story.condition("silent")
    assert await telling.turns(5) == 0
    story.condition("temperature-lost")
    assert await telling.turns(4, 1) == 1
    [said] = addressee.heard
    assert said["title"] == "labctl: 2 alarms"
    assert said["type"] == "failure"
    first, second = said["message"].splitlines()
    assert "high: silent, cell HEV-1 (run-1)" in first
    assert "medium: temperature-lost" in second
    assert await telling.turns(60, 600) == 0
    assert deliveries(engine) == [(1, 1, True, "")]


async def test_nobody_is_told_of_what_was_acknowledged_in_the_meantime(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    telling = Telling(engine, clock, addressee.url)
    story.condition("silent")
    await telling.turns(5)
    acknowledge(engine, 1, actor="mia")
    assert await telling.turns(10, 4000) == 0
    assert addressee.heard == []


async def test_it_is_said_again_every_hour_until_somebody_acknowledges(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    telling = Telling(engine, clock, addressee.url)
    story.condition("silent")
    await telling.turns(10, 3600, 10, 3590, 10)
    assert addressee.titles == [
        "labctl: silent, cell HEV-1",
        "labctl: silent, cell HEV-1, still not acknowledged",
        "labctl: silent, cell HEV-1, still not acknowledged",
    ]
    acknowledge(engine, 1, actor="mia")
    assert await telling.turns(3600, 3600) == 0


async def test_nobody_is_told_of_what_is_shelved_until_it_comes_back(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    telling = Telling(engine, clock, addressee.url)
    story.condition("silent")
    shelve(engine, 1, until_unix_s=9e9, actor="mia")
    assert await telling.turns(10, 4000) == 0
    unshelve(engine, 1, actor="mia")
    assert await telling.turns(10) == 1
    assert addressee.titles == ["labctl: silent, cell HEV-1"]


async def test_a_limit_that_tripped_is_told_of_though_it_is_over_at_once(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    story.tell(RunStateChanged(run="run-1", state="tripped", reason="4.5 V", unix_time_s=2e9))
    assert await Telling(engine, clock, addressee.url).turns(10) == 1
    assert "labctl alarms reset 1" in addressee.heard[0]["message"]


async def test_an_address_that_fails_is_tried_again_and_the_others_are_not_told_twice(
    engine: Engine,
    story: Story,
    addressee: Addressee,
    other_addressee: Addressee,
    clock: ManualClock,
) -> None:
    telling = Telling(engine, clock, addressee.url, other_addressee.url)
    addressee.status = 500
    story.condition("silent")
    assert await telling.turns(10) == 2
    assert sorted(row[1:3] for row in deliveries(engine)) == [(1, False), (1, True)]
    assert any("500" in row[3] for row in deliveries(engine))
    assert await telling.turns(9) == 0
    assert await telling.turns(1, 20, 40) == 3
    assert len(other_addressee.heard) == 1
    # An hour later it is said again where it is known, and not piled up where nothing arrives.
    await clock.advance(3600)
    assert await telling.turns(10) == 2
    assert len(other_addressee.heard) == 2
    addressee.status = 200
    await clock.advance(1800)
    assert await telling.turns() == 1
    assert addressee.titles[-1] == "labctl: silent, cell HEV-1"
    assert [row[2] for row in deliveries(engine)] == [True] * 3


async def test_an_address_that_nobody_listens_at_says_so_without_its_password(
    engine: Engine, story: Story, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    telling = Telling(engine, clock, "json://mia:hunter2@127.0.0.1:1/x")
    story.condition("silent")
    assert await telling.turns(10) == 1
    [(_, attempts, delivered, problem)] = deliveries(engine)
    assert (attempts, delivered) == (1, False)
    assert problem
    assert "could not be delivered" in caplog.text
    assert "hunter2" not in problem + caplog.text


async def test_a_restart_neither_loses_nor_doubles(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    addressee.status = 500
    story.condition("silent")
    assert await Telling(engine, clock, addressee.url).turns(10) == 1
    addressee.status = 200
    restarted = Telling(engine, clock, addressee.url)
    assert await restarted.turns(10) == 1
    assert await Telling(engine, clock, addressee.url).turns(10, 60) == 0
    assert len(addressee.heard) == 2


async def test_what_is_on_its_way_when_the_archive_ends_is_not_said_again(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    addressee.hold = threading.Event()
    story.condition("silent")
    telling = Telling(engine, clock, addressee.url)
    await telling.turns(5)
    await clock.advance(5)
    task = asyncio.create_task(telling.notifier.run())
    await asyncio.to_thread(addressee.waits.wait, 20.0)
    task.cancel()
    await asyncio.sleep(0)
    addressee.hold.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    addressee.hold = None
    assert deliveries(engine) == [(1, 1, True, "")]
    assert await Telling(engine, clock, addressee.url).turns(10, 200) == 0
    assert len(addressee.heard) == 1


async def test_it_is_written_by_the_process_that_commits(
    engine: Engine, archive_url: str, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    story.condition("silent")
    telling = Telling(engine, clock, addressee.url)
    writer = ProcessWriter(engine.url.render_as_string(hide_password=False))
    telling.notifier._do = writer.do
    try:
        assert await telling.turns(10) == 1
        assert await writer.do(can_commit)
        seen = Seen({"lab1": 1.0}, frozenset({"lab2"}))
        assert await writer.do(partial(keep, seen=seen, now_unix_s=2.0))
    finally:
        await writer.close()
    assert deliveries(engine) == [(1, 1, True, "")]
    with engine.connect() as connection:
        found = connection.execute(text("SELECT rule, state FROM alarms ORDER BY alarm_number"))
        assert [tuple(row) for row in found] == [
            ("silent", "suppressed"),
            ("node-gone", "unacknowledged"),
        ]


async def test_an_archive_that_was_killed_in_the_middle_is_made_up_for_by_another(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    story.condition("silent")
    targets = (digest_of(addressee.url),)
    now_s = clock.unix_time_s()
    told = {"targets": targets, "now_unix_s": now_s}
    assert write_down(engine, chosen=frozenset({1}), min_priority="low", **told) == 1  # type: ignore[arg-type]
    assert claim(engine, **told) is not None  # type: ignore[arg-type]
    other = Telling(engine, clock, addressee.url)
    assert await other.turns(60) == 0
    assert await other.turns(60) == 1
    assert addressee.titles == ["labctl: silent, cell HEV-1"]


async def test_several_archives_tell_people_once(
    engine: Engine, archive_url: str, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    for name in ("silent", "frozen"):
        story.condition(name)
    engines = [open_engine(archive_url) for _ in range(3)]
    archives = [Telling(each, clock, addressee.url) for each in engines]
    try:
        for pause_s in (10, 0, 5, 5):
            await asyncio.gather(*(each.notifier.turn() for each in archives))
            await clock.advance(pause_s)
    finally:
        for each in engines:
            each.dispose()
    assert addressee.titles == ["labctl: 2 alarms"]
    assert deliveries(engine) == [(1, 1, True, "")]


def test_a_delivery_is_in_one_hand_only(engine: Engine, archive_url: str, story: Story) -> None:
    story.condition("silent")
    targets = tuple(f"target-{n}" for n in range(6))
    told = {"targets": targets, "now_unix_s": 1.8e9}
    engines = [open_engine(archive_url) for _ in range(6)]
    try:
        with ThreadPoolExecutor(6) as threads:
            wrote = list(
                threads.map(
                    lambda each: write_down(
                        each, chosen=frozenset({1}), min_priority="low", **told
                    ),
                    engines,
                )
            )
            assert sorted(map(repr, wrote)) == ["1", *["None"] * 5]
            claims = list(threads.map(lambda each: claim(each, **told), engines))
    finally:
        for each in engines:
            each.dispose()
    hands = [one.target for one in claims if one is not None]
    assert len(hands) == len(set(hands))
    while (one := claim(engine, **told)) is not None:  # type: ignore[arg-type]
        hands.append(one.target)
    assert sorted(hands) == sorted(targets)


async def test_the_heart_beats_while_the_archive_can_commit(
    engine: Engine, story: Story, addressee: Addressee, clock: ManualClock
) -> None:
    heart = f"http://127.0.0.1:{addressee.port}/ping"
    telling = Telling(engine, clock, heart=heart)
    assert await telling.notifier.beat()
    telling.healthy = False
    assert not await telling.notifier.beat()
    assert addressee.asked == 1
    telling.healthy = True
    addressee.status = 503
    assert not await telling.notifier.beat()
    assert addressee.asked == 2


async def test_the_heart_beats_once_a_minute(
    engine: Engine, addressee: Addressee, clock: ManualClock
) -> None:
    telling = Telling(engine, clock, heart=f"http://127.0.0.1:{addressee.port}/ping")
    task = asyncio.create_task(telling.notifier.run())
    async with asyncio.timeout(20.0):
        for beats in (1, 2, 3):
            while addressee.asked < beats or not clock._sleepers:
                await asyncio.sleep(0)
            await clock.advance(59)
            assert addressee.asked == beats
            await clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_address_that_nobody_understands_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="the address nonsense:… is not understood"):
        AppriseSender("nonsense://a:secret@b")


def test_the_database_names_addresses_by_digests_that_tell_them_apart() -> None:
    urls = ["json://a:b@localhost/", "json://a:c@localhost/"]
    assert len({digest_of(url) for url in urls}) == 2
    assert list(senders_of(urls)) == [*map(digest_of, urls)]
