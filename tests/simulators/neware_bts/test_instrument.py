"""The electronics: what they read for true values, however the readings are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.simulators.neware_bts.instrument import Instrument, gaussian

SEQ = np.arange(1, 20_001, dtype=np.int64)


def test_noise_has_the_spread_that_it_claims_and_no_memory() -> None:
    noise = gaussian(12345, SEQ, 1)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0, abs=0.03)
    assert np.corrcoef(noise, gaussian(12345, SEQ, 2))[0, 1] == pytest.approx(0, abs=0.03)
    assert np.abs(noise).max() < 3.5


@given(st.integers(1, 19_000), st.integers(1, 1000))
def test_a_reading_is_the_same_in_a_block_of_any_length(first: int, count: int) -> None:
    instrument = Instrument.of(7, 1, 3)
    volts, amps = np.linspace(1, 4, len(SEQ)), np.linspace(-1e-3, 1e-3, len(SEQ))
    full = np.full(len(SEQ), 1e-3)
    here = slice(first - 1, first - 1 + count)
    whole_V = instrument.voltages_V(5, SEQ, volts)[here]
    part_V = instrument.voltages_V(5, SEQ[here], volts[here])
    assert whole_V.tobytes() == part_V.tobytes()
    whole_A = instrument.currents_A(5, SEQ, amps, full)[here]
    part_A = instrument.currents_A(5, SEQ[here], amps[here], full[here])
    assert whole_A.tobytes() == part_A.tobytes()


def test_seed_channel_and_test_each_give_other_readings() -> None:
    volts = np.full(len(SEQ), 3.7)
    found = {
        Instrument.of(seed, unit, channel).voltages_V(test, SEQ, volts).tobytes()
        for seed, unit, channel, test in ((1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1))
    }
    found.add(Instrument.of(1, 1, 1).voltages_V(2, SEQ, volts).tobytes())
    assert len(found) == 5


def test_readings_are_near_the_truth_and_on_the_grid_of_the_resolution() -> None:
    for channel in range(1, 9):
        instrument = Instrument.of(3, 1, channel)
        read_V = instrument.voltages_V(1, SEQ, np.full(len(SEQ), 4.0))
        assert np.abs(read_V - 4.0).max() < 2e-3
        assert np.allclose(read_V / 1e-5, np.rint(read_V / 1e-5), atol=1e-6)
        read_A = instrument.currents_A(1, SEQ, np.full(len(SEQ), 40e-6), np.full(len(SEQ), 100e-6))
        assert np.abs(read_A - 40e-6).max() < 100e-6 * 5e-4
        assert np.allclose(read_A / 1e-10, np.rint(read_A / 1e-10), atol=1e-6)


def test_an_open_relay_reads_no_current() -> None:
    read = Instrument.of(3, 1, 1).currents_A(1, SEQ, np.zeros(len(SEQ)), np.zeros(len(SEQ)))
    assert not read.any()
