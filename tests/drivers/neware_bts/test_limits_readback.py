"""No test is started before the step file that the host reads has shown the limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from rack_lab import PROGRAM, lab_in

from labctl.clock import VirtualClock
from labctl.drivers.base import Failsafe
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.errors import InstrumentError, LinkError
from labctl.program import Limits

CHANNEL = "21-1-1"


def tampering(monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes) -> None:
    """A folder on a network in which a file comes out otherwise than it was written."""

    def written(path: Path, data: bytes) -> None:
        assert old in data
        path.write_bytes(data.replace(old, new))

    monkeypatch.setattr("labctl.drivers.neware_bts.files.write_whole", written)


async def test_what_is_armed_is_what_the_file_says_in_its_own_units(tmp_path: Path) -> None:
    """Step file, notes on aurora-unicycler's writer and neware-utils: voltage in 0.1 mV, current in
    mA, capacity in mAh * 3600: 4.4 V, 1 V, 11 mA and 0.4 mAh."""
    async with lab_in(tmp_path) as lab:
        armed = await lab.new_driver().arm(CHANNEL, PROGRAM, "run-1")
        text = (tmp_path / "run-1.xml").read_bytes()
        whole = text[text.index(b"<Whole_Prt>") : text.index(b"</Whole_Prt>")]
        assert b'<Upper Value="44000" />' in whole
        assert b'<Lower Value="10000" />' in whole
        assert b'<Upper Value="11" />' in whole
        assert b'<Lower Value="-11" />' in whole
        assert b'<Upper Value="1440" />' in whole
        assert armed.limits == Limits(1.0, 4.4, -0.011, 0.011, 4e-4, armed.limits.duration_max_s)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'<Upper Value="44000" />', b'<Upper Value="50000" />'),
        (b'<Upper Value="44000" />', b'<Upper Value="44001" />'),
        (b'<Upper Value="44000" />', b""),
        (b'<Lower Value="10000" />', b'<Lower Value="0" />'),
        (b'<Upper Value="11" />', b'<Upper Value="100" />'),
        (b'<Lower Value="-11" />', b'<Lower Value="11" />'),
        (b'<Upper Value="1440" />', b'<Upper Value="144000" />'),
        (b'<Scale Value="1" />', b'<Scale Value="10" />'),
        (b"<Whole_Prt>", b"<Whole_Prt_>"),
        (b'<Stop_Volt Value="41000" />', b'<Stop_Volt Value="48000" />'),
        (b'<Curr Value="2" />', b'<Curr Value="20" />'),
        (b"</root>", b""),
        (b'Cycle_Count Value="2"', b'Cycle_Count Value="2000"'),
    ],
)
async def test_a_file_that_came_out_otherwise_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    tampering(monkeypatch, old, new)
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        with pytest.raises(InstrumentError) as caught:
            await driver.arm(CHANNEL, PROGRAM, "run-1")
        assert caught.value.instrument == "rack 1"
        assert caught.value.command == "arm"
        assert caught.value.reply
        assert (await driver.status(CHANNEL)).test == ""


async def test_a_folder_that_keeps_nothing_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.drivers.neware_bts.files.write_whole", lambda path, data: None)
    async with lab_in(tmp_path) as lab:
        driver = lab.new_driver()
        with pytest.raises(LinkError, match="could not be written and read back"):
            await driver.arm(CHANNEL, PROGRAM, "run-1")
        assert (await driver.status(CHANNEL)).test == ""


def test_its_channels_carry_their_limits_whether_anybody_listens_or_not(tmp_path: Path) -> None:
    config = NewareConfig(host="bts", step_file_dir=str(tmp_path))
    driver = NewareBts(config, name="rack 1", clock=VirtualClock())
    assert driver.capabilities.failsafe is Failsafe.ONBOARD
