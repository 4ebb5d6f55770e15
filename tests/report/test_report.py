"""The result plot and the tables, from records as an archive returns them."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from labctl.report.plots import capacity_curves, plot_capacity
from labctl.report.tables import cycle_lines, cycle_tables, print_cycles

MATERIALS = {
    "HE-V": (((1.67, 58.0), (3.43, 72.0), (4.03, 30.0)), 0.012, 0.010),
    "NVP": (((1.63, 52.0), (3.38, 92.0)), 0.035, 0.004),
}


def cycled(cell: str, material: str, cycles: int = 4, mass_g: float = 2.0e-3, seed: int = 0):
    """Records of a cell cycled between 1.5 V and 4.1 V, as ``Archive.samples`` gives them."""
    known, polarisation_V, width_V = MATERIALS[material]
    grid_V = np.linspace(1.4, 4.2, 5601)
    at_rest = 3.0 * (grid_V - grid_V[0])
    for voltage, amount in known:
        at_rest = at_rest + amount / (1 + np.exp(np.clip((voltage - grid_V) / width_V, -500, 500)))
    rng = np.random.default_rng(seed)
    parts, net = [], 0.0
    for cycle in range(1, cycles + 1):
        for sign in (1, -1):
            low, high = np.interp(
                [1.5 - sign * polarisation_V, 4.1 - sign * polarisation_V], grid_V, at_rest
            )
            if cycle == 1 and sign > 0:
                low = at_rest[np.searchsorted(grid_V, 2.5)]
            passed = np.linspace(low, high, 500)[::sign]
            parts.append(
                pd.DataFrame(
                    {
                        "cycle": cycle,
                        "voltage_V": np.interp(passed, at_rest, grid_V)
                        + sign * polarisation_V
                        + rng.normal(0, 2e-4, 500),
                        "current_A": sign * 2e-5 * mass_g / 1e-3,
                        "charge_Ah": net + (passed - passed[0]) * (1 - 0.01 * cycle) * mass_g / 1e3,
                    }
                )
            )
            net = float(parts[-1]["charge_Ah"].iloc[-1])
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(run=f"run-{cell}", cell=cell, material=material, active_mass_g=mass_g)


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    return pd.concat(
        [cycled("HEV-1", "HE-V"), cycled("HEV-2", "HE-V", seed=2), cycled("NVP-1", "NVP", seed=3)],
        ignore_index=True,
    )


def test_the_plot_shows_the_plateaus_of_each_material(records, tmp_path):
    figure = plot_capacity(records)
    _, he_v, nvp = figure.axes
    labels = [[text.get_text().split("\n")[0] for text in axes.texts] for axes in (he_v, nvp)]
    assert [label for label in labels[0] if label.endswith("V")] == [
        "1.67 V",
        "3.43 V",
        "4.03 V",
        "HE-V",
    ]
    assert labels[1][:2] == ["1.63 V", "3.38 V"]
    separations = [text.get_text().split("\n")[1] for text in nvp.texts[:2]]
    assert all(60 <= int(text.removeprefix("Δ ").removesuffix(" mV")) <= 80 for text in separations)
    figure.savefig(tmp_path / "capacity.png", dpi=60)
    assert (tmp_path / "capacity.png").stat().st_size > 10_000


def test_the_capacity_is_per_gram_and_each_half_begins_at_zero(records):
    curves = {(one.cell, one.cycle): one for one in capacity_curves(records)}
    assert len(curves) == 12
    last = curves["HEV-1", 4]
    assert last.discharge is not None
    assert last.discharge.charge_Ah[0] == 0
    assert last.discharge.charge_Ah[-1] == pytest.approx(0.96 * 167, rel=0.02)


def test_the_legend_and_the_labels_cover_no_data(records):
    figure = plot_capacity(records, title="A title that takes room as well")
    figure.savefig(io.BytesIO(), dpi=60)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    (legend,) = figure.legends
    assert not any(legend.get_window_extent().overlaps(box) for box in boxes)
    for axes in figure.axes[1:]:
        highest = max(line.get_ydata().max() for line in axes.lines if len(line.get_ydata()) > 10)
        for text in axes.texts[:-1]:
            bottom = text.get_window_extent().transformed(axes.transData.inverted()).y0
            assert bottom > highest


def test_a_cell_may_be_chosen_and_a_run_that_only_charged_is_drawn(records):
    figure = plot_capacity(records, cells=["HEV-2"], cycle=2)
    assert "cell HEV-2, cycle 2" in figure.legends[0].get_texts()[0].get_text()
    charged = records[(records["cell"] == "HEV-1") & (records["current_A"] > 0)]
    figure = plot_capacity(charged[charged["cycle"] == 1])
    assert "discharge" not in figure.legends[0].get_texts()[0].get_text()


def test_records_that_cannot_be_drawn_are_refused(records):
    with pytest.raises(ValueError, match="voltage_V"):
        plot_capacity(records.drop(columns="voltage_V"))
    with pytest.raises(ValueError, match="active mass"):
        plot_capacity(records.assign(active_mass_g=0.0))
    with pytest.raises(ValueError, match="no cycle"):
        plot_capacity(records.assign(cycle=0))


def cycle_figures(count: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "cell": "HEV-1",
            "material": "HE-V",
            "cycle": np.arange(1, count + 1),
            "charge_mAh_g": 170.0,
            "discharge_mAh_g": 169.5,
            "coulombic_efficiency": [1.45, *[0.99706] * (count - 1)],
            "retention": [np.nan, *[0.952] * (count - 1)],
            "mean_charge_voltage_V": 3.05,
            "mean_discharge_voltage_V": 3.0,
            "complete": [*[True] * (count - 1), False],
            "interrupted": False,
        }
    )


def drawn(width: int, cycles: pd.DataFrame) -> str:
    out = io.StringIO()
    print_cycles(cycles, Console(file=out, width=width, force_terminal=True, color_system=None))
    return out.getvalue()


def test_a_wide_terminal_shows_everything():
    text = drawn(100, cycle_figures())
    assert "Cell HEV-1 (HE-V)" in text
    for part in ("99.71", "95.20", "3.050", "3.000", "170.0", "169.5", "145.00", "–", "3*"):
        assert part in text
    assert "* partial or interrupted" in text


@pytest.mark.parametrize("width", [24, 36, 50, 60, 80, 100, 200])
def test_no_terminal_is_too_narrow_for_whole_figures(width):
    text = drawn(width, cycle_figures())
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert "169.5" in text
    assert ("3.050" in text) == (width >= 80)


def test_of_many_cycles_the_first_and_the_last_are_shown():
    (table,) = cycle_tables(cycle_figures(10_000))
    assert table.row_count == 40
    text = drawn(100, cycle_figures(10_000))
    assert "9999" in text
    assert "⋮" in text


def test_a_pipe_gets_a_line_a_cycle_with_tabs_and_nothing_cut_off():
    out = io.StringIO()
    print_cycles(cycle_figures(500), Console(file=out, width=20))
    again = pd.read_csv(io.StringIO(out.getvalue()), sep="\t")
    assert len(again) == 500
    assert again["coulombic_efficiency"].iloc[1] == 0.99706
    assert out.getvalue() == cycle_lines(cycle_figures(500))


def test_no_cycles_are_said():
    assert "no cycles yet" in drawn(80, cycle_figures(1).iloc[:0])
