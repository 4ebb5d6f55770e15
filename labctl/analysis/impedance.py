"""Impedance: what an equivalent circuit says about a spectrum.

Z(w) = R_s + sum of arcs + diffusion, each arc a resistance beside a constant phase element,

    R / (1 + (j w tau)^alpha),    tau^alpha = R Q,

and diffusion either none, semi-infinite (Warburg) s (1 - j) / sqrt(w), or in a layer that ends
(spheres at low frequency), R_d coth(sqrt(j w tau_d)) / sqrt(j w tau_d). Diffusion stands in series
with the arcs; a Randles circuit has it inside the last one, which is the same as long as their
frequencies are well apart. A half cell has two interfaces, so that it may need two arcs.

K. S. Cole and R. H. Cole, J. Chem. Phys. 9 (1941) 341 (arc); J. E. B. Randles, Discuss. Faraday
Soc. 1 (1947) 11; T. Jacobsen and K. West, Electrochim. Acta 40 (1995) 255 (layer that ends);
weighting by the modulus: J. R. Macdonald, Impedance Spectroscopy (Wiley 1987), 3.3; choice between
circuits: N. Sugiura, Commun. Stat. Theory Methods 7 (1978) 13 (corrected Akaike criterion).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from labctl.model import FloatColumn

ComplexColumn: TypeAlias = npt.NDArray[np.complex128]
Diffusion = Literal["none", "semi-infinite", "finite"]

FEWEST_POINTS = 8
LEAST_EXPONENT = 0.5
FIRST_STEPS, KEPT_STARTS, MOST_STEPS = 8, 3, 200
_DIFFUSION_PARAMETERS: dict[Diffusion, int] = {"none": 0, "semi-infinite": 1, "finite": 2}


@dataclass(frozen=True, slots=True)
class Arc:
    """One arc. ``frequency_Hz`` is that of its top, 1 / (2 pi tau); ``exponent`` is alpha, 1 for a
    capacitor. The errors are standard errors."""

    resistance_ohm: float
    resistance_error_ohm: float
    frequency_Hz: float
    exponent: float

    @property
    def cpe_S_s_n(self) -> float:
        """Q of the constant phase element, in S s^alpha."""
        tau_s = 1 / (2 * math.pi * self.frequency_Hz)
        return math.pow(tau_s, self.exponent) / self.resistance_ohm


@dataclass(frozen=True, slots=True)
class Circuit:
    """A circuit fitted to a spectrum.

    arcs: the one of the highest frequency first.
    charge_transfer_ohm: of all arcs together, with its standard error.
    warburg_ohm_per_sqrt_s: of semi-infinite diffusion, NaN where there is none.
    layer_ohm, layer_s: R_d and tau_d of diffusion in a layer that ends, NaN where there is none.
    misfit: root mean square of the difference over the measured modulus, a fraction.
    """

    series_ohm: float
    arcs: tuple[Arc, ...]
    charge_transfer_ohm: float
    charge_transfer_error_ohm: float
    diffusion: Diffusion
    warburg_ohm_per_sqrt_s: float
    layer_ohm: float
    layer_s: float
    misfit: float

    def impedance_ohm(self, frequency_Hz: FloatColumn) -> ComplexColumn:
        """The circuit's impedance."""
        jw = _jw(frequency_Hz)
        z = np.full(len(jw), self.series_ohm, dtype=np.complex128)
        for arc in self.arcs:
            tau_s = 1 / (2 * math.pi * arc.frequency_Hz)
            z += arc.resistance_ohm / (1 + (jw * tau_s) ** arc.exponent)
        if self.diffusion == "semi-infinite":
            z += _semi_infinite(jw, self.warburg_ohm_per_sqrt_s)
        elif self.diffusion == "finite":
            z += _finite(jw, self.layer_ohm, self.layer_s)
        return z


def fit_circuit(
    frequency_Hz: FloatColumn,
    impedance_real_ohm: FloatColumn,
    impedance_imag_ohm: FloatColumn,
    *,
    arcs: int | None = None,
    diffusion: Diffusion | None = None,
) -> Circuit:
    """The circuit that fits a spectrum, by least squares with each point weighted by its modulus.

    Args:
        frequency_Hz, impedance_real_ohm, impedance_imag_ohm: columns of equal length, in any order;
            the imaginary part itself, negative for a capacitor. Points that are not finite, and
            those of positive imaginary part (cables), are left out.
        arcs: one or two; None takes what the corrected Akaike criterion prefers.
        diffusion: None likewise.

    Raises:
        ValueError: fewer than 8 usable points, or a number of arcs that is neither.
    """
    if arcs not in (None, 1, 2):
        raise ValueError(f"a circuit has one arc or two, not {arcs}")
    frequency, measured = _usable(frequency_Hz, impedance_real_ohm, impedance_imag_ohm)
    if len(frequency) < FEWEST_POINTS:
        raise ValueError(
            f"a circuit takes at least {FEWEST_POINTS} points that are capacitive and finite, "
            f"not {len(frequency)}"
        )
    kinds: tuple[Diffusion, ...] = (
        ("none", "semi-infinite", "finite") if diffusion is None else (diffusion,)
    )
    tried = [
        _fitted(_Model(frequency, measured, count, kind))
        for count, kind in itertools.product((1, 2) if arcs is None else (arcs,), kinds)
    ]
    return min(tried, key=lambda one: one[0])[1]


@dataclass(frozen=True, slots=True)
class _Model:
    """A circuit of unknown values. Parameters: ln R_s, then ln R, ln tau and alpha of each arc,
    then those of diffusion, all but alpha as logarithms: nothing of it can be negative."""

    frequency_Hz: FloatColumn
    measured: ComplexColumn
    arcs: int
    diffusion: Diffusion

    @property
    def count(self) -> int:
        return 1 + 3 * self.arcs + _DIFFUSION_PARAMETERS[self.diffusion]

    def impedance(self, p: FloatColumn) -> ComplexColumn:
        jw = _jw(self.frequency_Hz)
        z = np.full(len(jw), math.exp(p[0]), dtype=np.complex128)
        for n in range(self.arcs):
            log_r, log_tau, alpha = p[1 + 3 * n : 4 + 3 * n]
            z += math.exp(log_r) / (1 + (jw * math.exp(log_tau)) ** alpha)
        if self.diffusion == "semi-infinite":
            z += _semi_infinite(jw, math.exp(p[-1]))
        elif self.diffusion == "finite":
            z += _finite(jw, math.exp(p[-2]), math.exp(p[-1]))
        return z

    def residuals(self, p: FloatColumn) -> FloatColumn:
        difference = (self.impedance(p) - self.measured) / np.abs(self.measured)
        return np.concatenate([difference.real, difference.imag])

    def bounds(self) -> tuple[FloatColumn, FloatColumn]:
        largest = float(np.abs(self.measured).max())
        slowest_s = 1 / (2 * math.pi * float(self.frequency_Hz.min()))
        fastest_s = 1 / (2 * math.pi * float(self.frequency_Hz.max()))
        resistance = (math.log(1e-6 * largest), math.log(20 * largest))
        pairs = [resistance]
        for _ in range(self.arcs):
            pairs += [
                (math.log(1e-4 * largest), resistance[1]),
                (math.log(fastest_s), math.log(slowest_s)),
                (LEAST_EXPONENT, 1.0),
            ]
        if self.diffusion != "none":
            pairs.append((math.log(1e-6 * largest), math.log(1e3 * largest)))
        if self.diffusion == "finite":
            pairs.append((math.log(fastest_s), math.log(1e4 * slowest_s)))
        low, high = zip(*pairs, strict=True)
        return np.array(low), np.array(high)

    def starts(self) -> list[FloatColumn]:
        """Several places to begin the search: the arcs at different frequencies."""
        series = max(float(self.measured.real.min()), 1e-3 * float(np.abs(self.measured).max()))
        width = max(float(np.ptp(self.measured.real)), 0.1 * series)
        low, high = np.log(1 / (2 * np.pi * self.frequency_Hz[[-1, 0]]))
        places = (
            [(share,) for share in (0.25, 0.45, 0.65)]
            if self.arcs == 1
            else [(0.25, 0.45), (0.3, 0.65), (0.45, 0.65), (0.1, 0.4)]
        )
        slowest = 2 * math.pi * float(self.frequency_Hz[-1])
        slope = max(slowest * -float(self.measured.imag[-1]), 1e-6 * width)
        diffusions: list[list[float]] = [[]]
        if self.diffusion == "semi-infinite":
            diffusions = [[math.log(0.1 * width)]]
        elif self.diffusion == "finite":
            # At low frequency -Im Z is R_d / (w tau_d), so that one follows from the other.
            layers_s = [share / slowest for share in (0.1, 1.0, 30.0)]
            diffusions = [[math.log(slope * tau_s), math.log(tau_s)] for tau_s in layers_s]
        found = []
        for shares, diffusion in itertools.product(places, diffusions):
            p = [math.log(0.9 * series)]
            for share in shares:
                p += [math.log(width / (2 * self.arcs)), low + share * (high - low), 0.9]
            found.append(np.array([*p, *diffusion]))
        return found


def _fitted(model: _Model) -> tuple[float, Circuit]:
    """The corrected Akaike criterion of the best fit, and the circuit."""
    from scipy.optimize import least_squares

    low, high = model.bounds()
    margin = 1e-6 * (high - low)

    def search(start: FloatColumn, most: int) -> Any:  # noqa: ANN401
        return least_squares(
            model.residuals,
            np.clip(start, low + margin, high - margin),
            bounds=(low, high),
            x_scale="jac",
            max_nfev=most,
        )

    # A few steps from each start show which of them are worth going on from.
    tried = sorted((search(start, FIRST_STEPS) for start in model.starts()), key=_cost)
    best = min((search(fit.x, MOST_STEPS) for fit in tried[:KEPT_STARTS]), key=_cost)
    observations, count = 2 * len(model.measured), model.count
    squares = max(2 * float(best.cost), 1e-24)
    spare = max(observations - count - 2, 1)
    criterion = (
        observations * math.log(squares / observations)
        + 2 * (count + 1)
        + 2 * (count + 1) * (count + 2) / spare
    )
    variance = squares / max(observations - count, 1)
    covariance = np.linalg.pinv(best.jac.T @ best.jac) * variance
    return criterion, _circuit(model, best.x, covariance, math.sqrt(squares / observations))


def _cost(fit: Any) -> float:  # noqa: ANN401
    return float(fit.cost)


def _circuit(model: _Model, p: FloatColumn, covariance: FloatColumn, misfit: float) -> Circuit:
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    arcs = []
    slope = np.zeros(len(p))
    for n in range(model.arcs):
        at = 1 + 3 * n
        resistance = math.exp(p[at])
        slope[at] = resistance
        arcs.append(
            Arc(
                resistance,
                resistance * float(errors[at]),
                1 / (2 * math.pi * math.exp(p[at + 1])),
                float(p[at + 2]),
            )
        )
    arcs.sort(key=lambda arc: -arc.frequency_Hz)
    finite = model.diffusion == "finite"
    return Circuit(
        series_ohm=math.exp(p[0]),
        arcs=tuple(arcs),
        charge_transfer_ohm=sum(arc.resistance_ohm for arc in arcs),
        charge_transfer_error_ohm=math.sqrt(max(float(slope @ covariance @ slope), 0.0)),
        diffusion=model.diffusion,
        warburg_ohm_per_sqrt_s=math.exp(p[-1]) if model.diffusion == "semi-infinite" else math.nan,
        layer_ohm=math.exp(p[-2]) if finite else math.nan,
        layer_s=math.exp(p[-1]) if finite else math.nan,
        misfit=misfit,
    )


def _usable(
    frequency_Hz: FloatColumn, real_ohm: FloatColumn, imag_ohm: FloatColumn
) -> tuple[FloatColumn, ComplexColumn]:
    """Finite, capacitive points, the highest frequency first."""
    frequency = np.asarray(frequency_Hz, dtype=np.float64)
    z = np.asarray(real_ohm, dtype=np.float64) + 1j * np.asarray(imag_ohm, dtype=np.float64)
    good = np.isfinite(frequency) & (frequency > 0) & np.isfinite(z) & (z.imag <= 0)
    good &= np.abs(z) > 0
    order = np.argsort(-frequency[good], kind="stable")
    return frequency[good][order], z[good][order]


def _jw(frequency_Hz: FloatColumn) -> ComplexColumn:
    return np.asarray(2j * np.pi * np.asarray(frequency_Hz, dtype=np.float64), dtype=np.complex128)


def _semi_infinite(jw: ComplexColumn, warburg: float) -> ComplexColumn:
    # s (1 - j) / sqrt(w) = s sqrt(2) / sqrt(j w)
    return np.asarray(warburg * math.sqrt(2) / np.sqrt(jw), dtype=np.complex128)


def _finite(jw: ComplexColumn, layer_ohm: float, layer_s: float) -> ComplexColumn:
    root = np.sqrt(jw * layer_s)
    return np.asarray(layer_ohm / (root * np.tanh(root)), dtype=np.complex128)
