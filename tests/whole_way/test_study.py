"""The whole reference study: every shipped recipe, run to its end, gives the published figures."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from labctl.cli.services import services_of
from labctl.demo.bench import Wanted, set_up_bench
from labctl.demo.conduct import conduct
from labctl.demo.findings import read_findings
from labctl.demo.study import whole_study
from labctl.protocols.recipe import shipped_recipes
from labctl.settings import load_settings
from labctl.supervisor import supervise

pytestmark = pytest.mark.whole_way

LONGEST_S = 400.0
STUDY = whole_study(7)


def test_every_shipped_recipe_is_part_of_the_study() -> None:
    included = {"formation"}  # by endurance-50C
    assert {work.recipe for work in STUDY.works} | included == set(shipped_recipes())


async def test_every_recipe_runs_to_its_end_and_the_archive_shows_the_published_figures(
    tmp_path: Path, mosquitto: object
) -> None:
    wanted = Wanted(seed=7, broker="mosquitto")
    with set_up_bench(tmp_path / "demo", STUDY, wanted) as bench:
        settings = load_settings(bench.config)
        async with supervise(services_of(settings, bench.config), bench.folder / "logs"):
            async with asyncio.timeout(LONGEST_S):
                await conduct(settings, STUDY, lambda *_: None)
        findings = await asyncio.to_thread(
            read_findings, settings.archive_url, STUDY, bench.folder / "plot.png"
        )
    assert findings.problems == ()
    assert [figure for figure in findings.figures if not figure.holds] == []
    alarms = findings.alarms
    false = alarms[~alarms["cell"].isin(STUDY.faulty)]
    assert false[["cell", "rule", "cycle_class", "cycle", "message"]].to_dict("records") == []
    assert set(alarms["cell"]) == STUDY.faulty
    assert findings.every_cycle > 10_000
    assert findings.samples > 2_000_000
    assert findings.published is not None
    wrong = [
        (row.number, row.what, row.measured) for row in findings.published.rows if not row.holds
    ]
    assert wrong == []
