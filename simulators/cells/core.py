"""The compiled core: one cell's equations, one adaptive step, and the walk from record to record.

Everything that is compiled stands in this one file, because numba's cache on disk knows only the
file that a function stands in: a core in several files could run with a stale part.

Equations, for each electrode (0 is the positive terminal's, 1 the negative's); a current counts
positive when it oxidises, so charging with I drives +I through electrode 0 and -I through 1:

- Diffusion in a sphere of equal particles, finite volumes refined towards the surface. The
  coefficient depends on the occupancy: dx/dt = div(grad Phi(x)) / tau, Phi' = D/D0, tau = R^2/D0.
- Butler-Volmer with transfer coefficients of one half: I_F = I0 2 sqrt(x(1-x)) 2 sinh(F eta/2RT),
  eta = phi - U(x) - H h. Hysteresis: dh/dq = K (sign(I_F) - h) per unit of the occupancy
  (Plett's one-state model, Battery Management Systems vol. 1, ch. 2).
- Side reactions: oxidation and reduction of the electrolyte (Tafel; the reduction dies off with
  the charge of the film that it grows), plating and stripping of sodium below 0 V.
- Double layer: C dphi/dt = I - I_F - I_side. Terminal: V = phi_0 - phi_1 + R_s I_cell, with an
  internal short g across the terminals.
- Outside: one thermal node; active material lost and resistance gained by charge and by time.

Time: RODASP (Steinebach 1995), a six-stage, stiffly accurate, L-stable Rosenbrock method of
order 4(3) with a continuous extension; it keeps linear invariants, so charge is conserved to
rounding. The step in hand is kept between calls and lived through by its continuous extension, so
how a caller cuts time has no influence on the grid: only a new control, setpoint, current limit or
ambient temperature cuts a step. Within a step phi_0 - phi_1 is a cubic of time; between its
extrema voltage and current are monotone, so every crossing is found, by bisection.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from labctl.simulators.cells.jit import compiled, inlined

Floats = npt.NDArray[np.float64]

FARADAY = 96485.33212
GAS = 8.314462618
T_REF_K = 298.15
SHELLS = 16

# One electrode in the fast state: SHELLS occupancies, then
PHI = SHELLS  # V against Na+/Na
HYS = SHELLS + 1
PLATED = SHELLS + 2  # Ah
FILM = SHELLS + 3  # Ah that went into the film (SEI)
OXIDISED = SHELLS + 4  # Ah
WIDTH = SHELLS + 5
Q_EXT = 2 * WIDTH  # Ah through the terminals
Q_CELL = Q_EXT + 1  # Ah through the electrodes; differs by the internal short
FAST = Q_EXT + 2

# The whole state is one array: four fast rows (start, end, two of the dense output), then
SLOW = 4 * FAST
TEMPERATURE = SLOW  # K
ACTIVE = SLOW + 1  # share of the active material left, two electrodes
GROWTH = SLOW + 3  # growth of the charge-transfer resistance, two electrodes; 1 when new
ISOLATED = SLOW + 5  # Ah of sodium in lost material, two electrodes
THROUGHPUT = SLOW + 7  # Ah, magnitude
AGE = SLOW + 8  # s
META = SLOW + 9
PENDING = META  # 1 while a step is being lived through
STEP = META + 1  # its length, s
INSIDE = META + 2  # how far in, s
CONTROL = META + 3
SETPOINT = META + 4
RAMP = META + 5  # V/s
CLIP = META + 6  # A
AMBIENT = META + 7  # degC
NEXT = META + 8  # s, the next step to try
SERIES = META + 9  # ohm in this step
CUBIC = META + 10  # four coefficients of phi_0 - phi_1 over the step
TURNS = META + 14  # up to two extrema, else 2
HEAT = META + 16  # W, mean over the step
STATE = META + 17

# Parameters of an electrode
(
    INSERTS,  # 1 for a particle electrode, 0 for sodium metal
    CAPACITY,  # Ah when new
    EXCHANGE,  # A at 25 degC, half full
    EXCHANGE_EA,  # J/mol
    TAU,  # s, R^2/D0 at 25 degC
    TAU_EA,  # J/mol
    DOUBLE_LAYER,  # F
    HYS_V,
    HYS_K,
    OX_A,
    OX_V,
    FILM_A,
    FILM_V,
    FILM_AH,
    PLATE_A,
    PLATE_AH,
    LOSS_CYCLE,  # share of active material per full equivalent cycle
    LOSS_S,  # share per second
    GROWTH_CYCLE,
    GROWTH_S,
    LOSS_BY_GROWTH,  # how much faster material is lost per unit of growth
    ENTROPY,  # V/K
    ELECTRODE_PARAMETERS,
) = range(23)

# Parameters of the cell
(RS, RS_EA, HEAT_CAPACITY, COOLING, SHORT, NOMINAL, AGEING_EA, CELL_PARAMETERS) = range(8)

# What is worked out once per step for an electrode
(D_F2, D_I0, D_RTAU, D_AS, D_OX, D_FILM, D_EASE, DERIVED) = range(8)

SWEEP = 5
DURATION, RECORDS, V_HIGH, V_LOW, I_SMALL, CHARGE, I_LARGE = range(7)
BIG = 1e300

TABLE_EDGE = 2e-4  # the tables of U end here; logarithms go on
TINY_X = 2e-5  # and below this a straight line, so that a solver can come back
STRIP_CAP = 400.0  # stripping of plated sodium is at most so many times its exchange current
OCV_ROWS = 4097
DIFFUSION_ROWS = 513
TOLERANCE = 1e-2  # of the change over a step, beside the absolute ones
TOLERANCE_V = 1e-4
TOLERANCE_X = 5e-5
TOLERANCE_H = 5e-3
LARGEST_SWING = 0.02  # of the occupancy, in one step
LONGEST_S = 7200.0
SHORTEST_S = 1e-11
COLDEST_K, HOTTEST_K = 200.0, 450.0  # rates stay as they are beyond

A21 = 3.0
A31, A32 = 1.831036793486759, 0.4955183967433795
A41, A42, A43 = 2.304376582692669, -0.05249275245743001, -1.176798761832782
A51, A52, A53, A54 = -7.170454962423024, -4.741636671481785, -16.31002631330971, -1.062004044111401
C21 = -12.0
C31, C32 = -8.791795173947035, -2.207865586973518
C41, C42, C43 = 10.81793056857153, 6.780270611428266, 19.53485944642410
C51, C52, C53, C54 = 34.19095006749676, 15.49671153725963, 54.74760875964130, 14.16005392148534
C61, C62, C63 = 34.62605830930532, 15.30084976114473, 56.99955578662667
C64, C65 = 18.40807009793095, -5.714285714285717
H21, H22, H23, H24 = 25.09876703708589, 11.62013104361867, 28.49148307714626, -5.664021568594133
H31, H32, H33 = 1.638054557396973, -0.7373619806678748, 8.477918219238990
H34, H35 = 15.99253148779520, -1.882352941176471
GAMMA = 0.25


@inlined
def open_circuit(table: Floats, e: int, x: float) -> tuple[float, float]:
    """U(x) in V and dU/dx; ``table`` holds both between TABLE_EDGE and 1 - TABLE_EDGE."""
    n = OCV_ROWS
    if x < TABLE_EDGE:
        slope = table[e, 0, 1] * TABLE_EDGE
        at = max(x, TINY_X)
        return table[e, 0, 0] + slope * (math.log(at / TABLE_EDGE) + (x - at) / at), slope / at
    if x > 1.0 - TABLE_EDGE:
        slope = table[e, n - 1, 1] * TABLE_EDGE
        left = 1.0 - x
        at = max(left, TINY_X)
        up = math.log(at / TABLE_EDGE) + (left - at) / at
        return table[e, n - 1, 0] - slope * up, slope / at
    width = (1.0 - 2.0 * TABLE_EDGE) / (n - 1)
    place = (x - TABLE_EDGE) / width
    k = min(int(place), n - 2)
    s = place - k
    u0, u1 = table[e, k, 0], table[e, k + 1, 0]
    d0, d1 = table[e, k, 1] * width, table[e, k + 1, 1] * width
    b = 3.0 * (u1 - u0) - 2.0 * d0 - d1
    c = 2.0 * (u0 - u1) + d0 + d1
    return u0 + s * (d0 + s * (b + s * c)), (d0 + s * (2.0 * b + s * 3.0 * c)) / width


@inlined
def diffusivity(table: Floats, e: int, x: float) -> tuple[float, float]:
    """Phi(x) and D(x)/D0 from rows of (D, Phi) over 0 to 1; D is linear between the rows.

    The first two rows and the last two have the same D, so that it is constant outside.
    """
    place = x * (DIFFUSION_ROWS - 1)
    k = int(min(max(place, 0.0), DIFFUSION_ROWS - 2.0))
    s = place - k
    d0 = table[e, k, 0]
    rise = table[e, k + 1, 0] - d0
    return table[e, k, 1] + s * (d0 + 0.5 * s * rise) * (1.0 / (DIFFUSION_ROWS - 1)), d0 + s * rise


@inlined
def soft_exp(z: float) -> tuple[float, float]:
    """exp(z) and its slope, straight above z = 40 so that nothing overflows."""
    if z > 40.0:
        top = math.exp(40.0)
        return top * (1.0 + z - 40.0), top
    e = math.exp(max(z, -700.0))
    return e, e


@inlined
def two_sinh(z: float) -> tuple[float, float]:
    """2 sinh(z) and its slope, straight beyond 40 so that nothing overflows."""
    a = abs(z)
    e, slope = soft_exp(a)
    inverse = 1.0 / e
    sign = 1.0 if z >= 0.0 else -1.0
    return sign * (e - inverse), slope + inverse


@inlined
def terminal(
    control: int, setpoint: float, clip: float, e: float, r: float
) -> tuple[float, float, float]:
    """Current into a source ``e`` behind ``r`` under a control; its slopes by e and setpoint."""
    if control == 0:
        return 0.0, 0.0, 0.0
    if control == 1:
        return setpoint, 0.0, 0.0
    if control == 3:
        square = e * e + 4.0 * r * setpoint
        if square <= 0.0:
            current, slope, by_setpoint = -e / (2.0 * r), -0.5 / r, 0.0
        else:
            root = max(math.sqrt(square), 1e-9)
            sign = 1.0 if (e >= 0.0 or setpoint > 0.0) else -1.0
            current = (-e + sign * root) / (2.0 * r)
            slope = (-1.0 + sign * e / root) / (2.0 * r)
            by_setpoint = 0.0
    elif control == 4:
        current, slope, by_setpoint = -e / (setpoint + r), -1.0 / (setpoint + r), 0.0
    else:
        current, slope, by_setpoint = (setpoint - e) / r, -1.0 / r, 1.0 / r
    if current > clip:
        return clip, 0.0, 0.0
    if current < -clip:
        return -clip, 0.0, 0.0
    return current, slope, by_setpoint


@inlined
def faradaic(
    e: int, y: Floats, p: Floats, d: Floats, tables_u: Floats
) -> tuple[float, float, float, float]:
    """Current of the main reaction in A, and its slopes by surface occupancy, phi and h."""
    phi = y[e * WIDTH + PHI]
    if p[e, INSERTS] == 0.0:
        s, slope = two_sinh(d[e, D_F2] * phi)
        return d[e, D_I0] * s, 0.0, d[e, D_I0] * slope * d[e, D_F2], 0.0
    x = y[e * WIDTH + SHELLS - 1]
    u, du = open_circuit(tables_u, e, x)
    inside = x * (1.0 - x)
    smooth = math.sqrt(inside * inside + 4e-12)
    root = math.sqrt(0.5 * (inside + smooth) + 1e-9)
    i0 = d[e, D_I0] * 2.0 * root
    di0 = d[e, D_I0] * (0.5 + 0.5 * inside / smooth) * (1.0 - 2.0 * x) / root
    s, slope = two_sinh(d[e, D_F2] * (phi - u - p[e, HYS_V] * y[e * WIDTH + HYS]))
    by_phi = i0 * slope * d[e, D_F2]
    return i0 * s, di0 * s - by_phi * du, by_phi, -by_phi * p[e, HYS_V]


@inlined
def aside(
    e: int, y: Floats, p: Floats, d: Floats
) -> tuple[float, float, float, float, float, float, float]:
    """Currents of oxidation, film and plating in A with slopes by phi; plating's by its charge."""
    if p[e, INSERTS] == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    f2 = d[e, D_F2]
    z = f2 * y[e * WIDTH + PHI]
    plated = y[e * WIDTH + PLATED]
    ordinary = -20.0 < z < 120.0
    if ordinary:
        up = math.exp(z)
        down = 1.0 / up
        ox = d[e, D_OX] * up
        dox = ox
        film = d[e, D_FILM] * down
        dfilm = film
    else:
        ox, dox = soft_exp(z - f2 * p[e, OX_V])
        film, dfilm = soft_exp(f2 * p[e, FILM_V] - z)
        ox *= p[e, OX_A]
        dox *= p[e, OX_A]
        ease = d[e, D_EASE]
        film *= ease
        dfilm *= ease
    plate, by_phi, by_plated = 0.0, 0.0, 0.0
    if z < 20.0 or plated != 0.0:
        reach = p[e, PLATE_AH]
        there = plated / (abs(plated) + reach)
        lay, dlay = soft_exp(-z)
        cap = STRIP_CAP
        strip = cap / (1.0 + cap * math.exp(-max(z, -600.0)))
        dstrip = strip * (1.0 - strip / cap)
        plate = p[e, PLATE_A] * (there * strip - lay)
        by_phi = p[e, PLATE_A] * f2 * (there * dstrip + dlay)
        by_plated = p[e, PLATE_A] * strip * reach / ((abs(plated) + reach) ** 2)
    return ox, dox * f2, -film, dfilm * f2, plate, by_phi, by_plated


@compiled
def rates(
    y: Floats,
    out: Floats,
    scratch: Floats,
    control: int,
    setpoint: float,
    clip: float,
    series: float,
    p: Floats,
    cell: Floats,
    d: Floats,
    tables_u: Floats,
    tables_d: Floats,
    inverses: Floats,
    bridges: Floats,
) -> None:
    """dy/dt of the fast state."""
    g = cell[SHORT]
    share = 1.0 / (1.0 + g * series)
    emf = (y[PHI] - y[WIDTH + PHI]) * share
    current, _, _ = terminal(control, setpoint, clip, emf, series * share)
    through = current - g * (emf + series * share * current)
    for e in range(2):
        o = e * WIDTH
        i_f, _, _, _ = faradaic(e, y, p, d, tables_u)
        ox, _, film, _, plate, _, _ = aside(e, y, p, d)
        drive = through if e == 0 else -through
        out[o + PHI] = (drive - i_f - ox - film - plate) / p[e, DOUBLE_LAYER]
        if p[e, INSERTS] == 0.0:
            continue
        for i in range(SHELLS):
            scratch[i], _ = diffusivity(tables_d, e, y[o + i])
        flux = 0.0
        rate = d[e, D_RTAU]
        for i in range(SHELLS - 1):
            towards = bridges[i] * (scratch[i + 1] - scratch[i]) * rate
            out[o + i] = (towards - flux) * inverses[i]
            flux = towards
        out[o + SHELLS - 1] = (-flux - i_f / d[e, D_AS]) * inverses[SHELLS - 1]
        smooth = math.sqrt(i_f * i_f + (1e-5 * d[e, D_AS] * 1e-3) ** 2)
        out[o + HYS] = p[e, HYS_K] * (i_f - smooth * y[o + HYS]) / d[e, D_AS]
        out[o + PLATED] = -plate / 3600.0
        out[o + FILM] = -film / 3600.0
        out[o + OXIDISED] = ox / 3600.0
    out[Q_EXT] = current / 3600.0
    out[Q_CELL] = through / 3600.0


@compiled
def factor(
    y: Floats,
    w: float,
    fac: Floats,
    control: int,
    setpoint: float,
    clip: float,
    series: float,
    p: Floats,
    cell: Floats,
    d: Floats,
    tables_u: Floats,
    tables_d: Floats,
    inverses: Floats,
    bridges: Floats,
) -> None:
    """Eliminates w - J, J the Jacobian at y, into ``fac``.

    fac[e] holds per electrode: SHELLS multipliers, SHELLS pivot inverses, SHELLS upper
    entries, then what ties the last shell, h, the plated sodium and phi; fac[2] the terminals.
    """
    g = cell[SHORT]
    share = 1.0 / (1.0 + g * series)
    emf = (y[PHI] - y[WIDTH + PHI]) * share
    _, by_e, by_set = terminal(control, setpoint, clip, emf, series * share)
    cut = 1.0 - g * series * share
    through_by_phi = (by_e * cut - g) * share
    fac[2, 0] = by_e * share / 3600.0
    fac[2, 1] = through_by_phi / 3600.0
    fac[2, 2] = by_set
    fac[2, 3] = by_set * cut
    for e in range(2):
        o = e * WIDTH
        k = 3 * SHELLS
        i_f, f_x, f_phi, f_h = faradaic(e, y, p, d, tables_u)
        _, dox, _, dfilm, _, dplate, by_plated = aside(e, y, p, d)
        c = p[e, DOUBLE_LAYER]
        schur = w + (f_phi + dox + dfilm + dplate) / c
        if p[e, INSERTS] != 0.0:
            _, here = diffusivity(tables_d, e, y[o])
            low = 0.0
            before = 0.0
            for i in range(SHELLS):
                diagonal = w + low * here * inverses[i]
                upper = 0.0
                following = 0.0
                if i < SHELLS - 1:
                    bridge = bridges[i] * d[e, D_RTAU]
                    _, following = diffusivity(tables_d, e, y[o + i + 1])
                    diagonal += bridge * here * inverses[i]
                    upper = -bridge * following * inverses[i]
                else:
                    bridge = 0.0
                    diagonal += f_x / d[e, D_AS] * inverses[i]
                if i > 0:
                    lower = -low * before * inverses[i]
                    fac[e, i] = lower * fac[e, SHELLS + i - 1]
                    diagonal -= fac[e, i] * fac[e, 2 * SHELLS + i - 1]
                fac[e, SHELLS + i] = 1.0 / diagonal
                fac[e, 2 * SHELLS + i] = upper
                low = bridge
                before = here
                here = following
            q = inverses[SHELLS - 1] / d[e, D_AS]
            smooth = math.sqrt(i_f * i_f + (1e-5 * d[e, D_AS] * 1e-3) ** 2)
            h = y[o + HYS]
            turn = p[e, HYS_K] / d[e, D_AS]
            by_i = turn * (1.0 - i_f / smooth * h)
            a11 = 1.0 / fac[e, SHELLS + SHELLS - 1]
            a12 = f_h * q
            a21 = -by_i * f_x
            a22 = w + turn * smooth - by_i * f_h
            one_over = 1.0 / (a11 * a22 - a12 * a21)
            fac[e, k] = a22 * one_over
            fac[e, k + 1] = -a12 * one_over
            fac[e, k + 2] = -a21 * one_over
            fac[e, k + 3] = a11 * one_over
            b1 = f_phi * q
            b2 = -by_i * f_phi
            fac[e, k + 4] = fac[e, k] * b1 + fac[e, k + 1] * b2
            fac[e, k + 5] = fac[e, k + 2] * b1 + fac[e, k + 3] * b2
            fac[e, k + 6] = f_x / c
            fac[e, k + 7] = f_h / c
            fac[e, k + 8] = by_plated / c
            fac[e, k + 9] = dplate / 3600.0
            fac[e, k + 10] = 1.0 / (w + by_plated / 3600.0)
            fac[e, k + 11] = dfilm / 3600.0
            fac[e, k + 12] = dox / 3600.0
            schur -= fac[e, k + 6] * fac[e, k + 4] + fac[e, k + 7] * fac[e, k + 5]
            schur -= fac[e, k + 8] * fac[e, k + 9] * fac[e, k + 10]
        fac[e, k + 13] = schur
    m00 = fac[0, 3 * SHELLS + 13] - through_by_phi / p[0, DOUBLE_LAYER]
    m01 = through_by_phi / p[0, DOUBLE_LAYER]
    m10 = through_by_phi / p[1, DOUBLE_LAYER]
    m11 = fac[1, 3 * SHELLS + 13] - through_by_phi / p[1, DOUBLE_LAYER]
    one_over = 1.0 / (m00 * m11 - m01 * m10)
    fac[2, 4] = m11 * one_over
    fac[2, 5] = -m01 * one_over
    fac[2, 6] = -m10 * one_over
    fac[2, 7] = m00 * one_over


@compiled
def solve(r: Floats, w: float, fac: Floats, p: Floats) -> None:
    """Solves (w - J) u = r in place with what ``factor`` left."""
    k = 3 * SHELLS
    rest0, rest1 = r[PHI], r[WIDTH + PHI]
    for e in range(2):
        if p[e, INSERTS] == 0.0:
            continue
        o = e * WIDTH
        for i in range(1, SHELLS):
            r[o + i] -= fac[e, i] * r[o + i - 1]
        rx, rh = r[o + SHELLS - 1], r[o + HYS]
        x = fac[e, k] * rx + fac[e, k + 1] * rh
        h = fac[e, k + 2] * rx + fac[e, k + 3] * rh
        r[o + SHELLS - 1] = x
        r[o + HYS] = h
        taken = fac[e, k + 6] * x + fac[e, k + 7] * h
        taken += fac[e, k + 8] * r[o + PLATED] * fac[e, k + 10]
        if e == 0:
            rest0 -= taken
        else:
            rest1 -= taken
    r[PHI] = fac[2, 4] * rest0 + fac[2, 5] * rest1
    r[WIDTH + PHI] = fac[2, 6] * rest0 + fac[2, 7] * rest1
    for e in range(2):
        if p[e, INSERTS] == 0.0:
            continue
        o = e * WIDTH
        phi = r[o + PHI]
        r[o + SHELLS - 1] -= fac[e, k + 4] * phi
        r[o + HYS] -= fac[e, k + 5] * phi
        r[o + PLATED] = (r[o + PLATED] - fac[e, k + 9] * phi) * fac[e, k + 10]
        r[o + FILM] = (r[o + FILM] - fac[e, k + 11] * phi) / w
        r[o + OXIDISED] = (r[o + OXIDISED] + fac[e, k + 12] * phi) / w
        for i in range(SHELLS - 2, -1, -1):
            r[o + i] = (r[o + i] - fac[e, 2 * SHELLS + i] * r[o + i + 1]) * fac[e, SHELLS + i]
    across = r[PHI] - r[WIDTH + PHI]
    r[Q_EXT] = (r[Q_EXT] + fac[2, 0] * across) / w
    r[Q_CELL] = (r[Q_CELL] + fac[2, 1] * across) / w


@inlined
def arrhenius(energy: float, temperature: float) -> float:
    """Factor by which a rate at ``temperature`` (K) exceeds the rate at 25 degC."""
    at = min(max(temperature, COLDEST_K), HOTTEST_K)
    return math.exp(energy / GAS * (1.0 / T_REF_K - 1.0 / at))


@compiled
def prepare(s: Floats, p: Floats, cell: Floats, d: Floats) -> float:
    """Fills ``d`` for a step from the slow state; gives the series resistance in ohm."""
    temperature = min(max(s[TEMPERATURE], COLDEST_K), HOTTEST_K)
    for e in range(2):
        d[e, D_F2] = 0.5 * FARADAY / (GAS * temperature)
        i0 = p[e, EXCHANGE] * arrhenius(p[e, EXCHANGE_EA], temperature)
        d[e, D_I0] = i0 * s[ACTIVE + e] / s[GROWTH + e]
        if p[e, INSERTS] != 0.0:
            d[e, D_RTAU] = arrhenius(p[e, TAU_EA], temperature) / p[e, TAU]
            d[e, D_AS] = 3600.0 * p[e, CAPACITY] * s[ACTIVE + e]
            f2 = d[e, D_F2]
            d[e, D_EASE] = p[e, FILM_A] * math.exp(-max(s[e * WIDTH + FILM], 0.0) / p[e, FILM_AH])
            d[e, D_OX] = p[e, OX_A] * math.exp(-f2 * p[e, OX_V])
            d[e, D_FILM] = d[e, D_EASE] * math.exp(f2 * p[e, FILM_V])
    return float(cell[RS] / arrhenius(cell[RS_EA], temperature))


@compiled
def attempt(
    s: Floats,
    h: float,
    u: Floats,
    yi: Floats,
    start: Floats,
    scratch: Floats,
    fac: Floats,
    p: Floats,
    cell: Floats,
    d: Floats,
    tables_u: Floats,
    tables_d: Floats,
    inverses: Floats,
    bridges: Floats,
) -> float:
    """One step of RODASP from row 0 into row 1, dense output into rows 2 and 3; the error norm."""
    control = int(s[CONTROL])
    setpoint, ramp, clip, series = s[SETPOINT], s[RAMP], s[CLIP], s[SERIES]
    w = 1.0 / (h * GAMMA)
    y = s[:FAST]
    factor(
        y,
        w,
        fac,
        control,
        setpoint,
        clip,
        series,
        p,
        cell,
        d,
        tables_u,
        tables_d,
        inverses,
        bridges,
    )
    r = 1.0 / h
    u0, u1, u2, u3, u4, u5 = u[0], u[1], u[2], u[3], u[4], u[5]
    for stage in range(6):
        out = u[stage]
        at = setpoint
        if stage == 0:
            for i in range(FAST):
                out[i] = start[i]
        elif stage == 1:
            at += ramp * h * 0.75
            for i in range(FAST):
                yi[i] = y[i] + A21 * u0[i]
        elif stage == 2:
            at += ramp * h * 0.21
            for i in range(FAST):
                yi[i] = y[i] + A31 * u0[i] + A32 * u1[i]
        elif stage == 3:
            at += ramp * h * 0.63
            for i in range(FAST):
                yi[i] = y[i] + A41 * u0[i] + A42 * u1[i] + A43 * u2[i]
        elif stage == 4:
            at += ramp * h
            for i in range(FAST):
                yi[i] = y[i] + A51 * u0[i] + A52 * u1[i] + A53 * u2[i] + A54 * u3[i]
        else:
            at += ramp * h
            for i in range(FAST):
                yi[i] += u4[i]
        if stage > 0:
            rates(
                yi,
                out,
                scratch,
                control,
                at,
                clip,
                series,
                p,
                cell,
                d,
                tables_u,
                tables_d,
                inverses,
                bridges,
            )
        if stage == 1:
            for i in range(FAST):
                out[i] += r * C21 * u0[i]
        elif stage == 2:
            for i in range(FAST):
                out[i] += r * (C31 * u0[i] + C32 * u1[i])
        elif stage == 3:
            for i in range(FAST):
                out[i] += r * (C41 * u0[i] + C42 * u1[i] + C43 * u2[i])
        elif stage == 4:
            for i in range(FAST):
                out[i] += r * (C51 * u0[i] + C52 * u1[i] + C53 * u2[i] + C54 * u3[i])
        elif stage == 5:
            for i in range(FAST):
                out[i] += r * (C61 * u0[i] + C62 * u1[i] + C63 * u2[i] + C64 * u3[i] + C65 * u4[i])
        if ramp != 0.0 and stage < 4:
            late = 0.25
            if stage == 1:
                late = -0.5
            elif stage == 2:
                late = -0.023504
            elif stage == 3:
                late = -0.0362
            late *= h * ramp
            out[PHI] += late * fac[2, 3] / p[0, DOUBLE_LAYER]
            out[WIDTH + PHI] -= late * fac[2, 3] / p[1, DOUBLE_LAYER]
            out[Q_EXT] += late * fac[2, 2] / 3600.0
            out[Q_CELL] += late * fac[2, 3] / 3600.0
        solve(out, w, fac, p)
    worst = 0.0
    total = 0.0
    for i in range(FAST):
        end = yi[i] + u5[i]
        total += end
        s[FAST + i] = end
        s[2 * FAST + i] = H21 * u0[i] + H22 * u1[i] + H23 * u2[i] + H24 * u3[i]
        s[3 * FAST + i] = H31 * u0[i] + H32 * u1[i] + H33 * u2[i] + H34 * u3[i] + H35 * u4[i]
    for e in range(2):
        o = e * WIDTH
        span = min(abs(s[FAST + o + PHI] - s[o + PHI]), 0.1)
        worst = max(worst, abs(u5[o + PHI]) / (TOLERANCE_V + TOLERANCE * span))
        if p[e, INSERTS] != 0.0:
            for i in range(SHELLS):
                span = min(abs(s[FAST + o + i] - s[o + i]), 0.02)
                worst = max(worst, abs(u5[o + i]) / (TOLERANCE_X + TOLERANCE * span))
            worst = max(worst, abs(u5[o + HYS]) / TOLERANCE_H)
            small = 1e-4 * p[e, CAPACITY]
            worst = max(worst, abs(u5[o + PLATED]) / small, abs(u5[o + FILM]) / small)
            worst = max(worst, abs(u5[o + OXIDISED]) / small)
    if not math.isfinite(total):
        return math.inf
    return worst


@inlined
def dense(s: Floats, i: int, at: float) -> float:
    """Component ``i`` of the fast state at the share ``at`` of the step in hand."""
    y0, y1 = s[i], s[FAST + i]
    if at >= 1.0:
        return float(y1)
    up = s[2 * FAST + i] + at * s[3 * FAST + i]
    return float(y0 + at * (y1 - y0 + (1.0 - at) * up))


@inlined
def readings(s: Floats, cell: Floats, at: float) -> tuple[float, float]:
    """Terminal voltage and current at the share ``at`` of the step in hand."""
    phi = s[CUBIC] + at * (s[CUBIC + 1] + at * (s[CUBIC + 2] + at * s[CUBIC + 3]))
    share = 1.0 / (1.0 + cell[SHORT] * s[SERIES])
    setpoint = s[SETPOINT] + s[RAMP] * s[STEP] * at
    r = s[SERIES] * share
    current, _, _ = terminal(int(s[CONTROL]), setpoint, s[CLIP], phi * share, r)
    return phi * share + r * current, current


@compiled
def energy(s: Floats, cell: Floats, a: float, b: float) -> float:
    """Wh through the terminals between two shares of the step; exact where V I is a 7th-degree
    polynomial of time (Gauss-Legendre, four points)."""
    half, mid = 0.5 * (b - a), 0.5 * (a + b)
    v1, i1 = readings(s, cell, mid - 0.8611363115940526 * half)
    v2, i2 = readings(s, cell, mid - 0.33998104358485626 * half)
    v3, i3 = readings(s, cell, mid + 0.33998104358485626 * half)
    v4, i4 = readings(s, cell, mid + 0.8611363115940526 * half)
    total = 0.34785484513745385 * (v1 * i1 + v4 * i4) + 0.6521451548625461 * (v2 * i2 + v3 * i3)
    return float(total * half * s[STEP] / 3600.0)


@inlined
def mean_occupancy(y: Floats, e: int, volumes: Floats) -> float:
    """Sodium in an electrode as a share of what it can hold."""
    total = 0.0
    for i in range(SHELLS):
        total += volumes[i] * y[e * WIDTH + i]
    return total


@compiled
def plan_step(
    s: Floats,
    u: Floats,
    yi: Floats,
    start: Floats,
    scratch: Floats,
    fac: Floats,
    p: Floats,
    cell: Floats,
    d: Floats,
    tables_u: Floats,
    tables_d: Floats,
    grid: Floats,
) -> None:
    """Finds the next step of right size and leaves it in hand."""
    volumes, inverses, bridges = grid[0], grid[1], grid[2]
    s[SERIES] = prepare(s, p, cell, d)
    control = int(s[CONTROL])
    h = s[NEXT]
    rates(
        s[:FAST],
        start,
        scratch,
        control,
        s[SETPOINT],
        s[CLIP],
        s[SERIES],
        p,
        cell,
        d,
        tables_u,
        tables_d,
        inverses,
        bridges,
    )
    if h <= 0.0:
        steepest = 1e-6
        for e in range(2):
            o = e * WIDTH
            steepest = max(steepest, abs(start[o + PHI]) / 0.01)
            if p[e, INSERTS] != 0.0:
                steepest = max(steepest, abs(start[o + SHELLS - 1]) / 0.001)
        h = 0.1 / steepest
    for e in range(2):
        if p[e, INSERTS] != 0.0:
            swing = 0.0
            for i in range(SHELLS):
                swing += volumes[i] * start[e * WIDTH + i]
            h = min(h, LARGEST_SWING / max(abs(swing), 1e-30))
    h = min(max(h, SHORTEST_S), LONGEST_S)
    while True:
        error = attempt(
            s, h, u, yi, start, scratch, fac, p, cell, d, tables_u, tables_d, inverses, bridges
        )
        if error <= 1.0:
            break
        if h <= SHORTEST_S:
            if error < 1e3:
                break
            for i in range(FAST):
                s[FAST + i] = s[i]
                s[2 * FAST + i] = 0.0
                s[3 * FAST + i] = 0.0
            break
        shrink = 0.1 if not math.isfinite(error) else max(0.2, 0.9 * error ** (-0.25))
        h = max(h * shrink, SHORTEST_S)
    grow = 6.0 if error < 1e-4 else min(6.0, max(0.2, 0.9 * error ** (-0.25)))
    s[NEXT] = h * grow if error < 1e3 else 1e-3
    s[STEP] = h
    s[INSIDE] = 0.0
    s[PENDING] = 1.0
    a, b = PHI, WIDTH + PHI
    rise = (s[FAST + a] - s[a]) - (s[FAST + b] - s[b])
    c3 = s[2 * FAST + a] - s[2 * FAST + b]
    c4 = s[3 * FAST + a] - s[3 * FAST + b]
    s[CUBIC] = s[a] - s[b]
    s[CUBIC + 1] = rise + c3
    s[CUBIC + 2] = c4 - c3
    s[CUBIC + 3] = -c4
    k1, k2, k3 = s[CUBIC + 1] - s[RAMP] * h, 2.0 * s[CUBIC + 2], 3.0 * s[CUBIC + 3]
    first, second = 2.0, 2.0
    square = k2 * k2 - 4.0 * k3 * k1
    if square > 0.0:
        lead = -0.5 * (k2 + (math.sqrt(square) if k2 >= 0.0 else -math.sqrt(square)))
        if lead != 0.0 and 0.0 < k1 / lead < 1.0:
            first = k1 / lead
        if k3 != 0.0 and 0.0 < lead / k3 < 1.0:
            second = lead / k3
    s[TURNS] = min(first, second)
    s[TURNS + 1] = max(first, second)
    heat = energy(s, cell, 0.0, 1.0)
    for e in range(2):
        o = e * WIDTH
        phi0, phi1 = s[o + PHI], s[FAST + o + PHI]
        heat -= 0.5 * p[e, DOUBLE_LAYER] * (phi1 * phi1 - phi0 * phi0) / 3600.0
        if p[e, INSERTS] != 0.0:
            stored = 0.0
            for i in range(SHELLS):
                x0, x1 = s[o + i], s[FAST + o + i]
                volts, _ = open_circuit(tables_u, e, 0.5 * (x0 + x1))
                stored += volumes[i] * (x0 - x1) * (volts - s[TEMPERATURE] * p[e, ENTROPY])
            heat -= stored * p[e, CAPACITY] * s[ACTIVE + e]
    s[HEAT] = heat * 3600.0 / h


@compiled
def temperature_at(s: Floats, cell: Floats, lived: float) -> float:
    """Temperature in K after ``lived`` seconds of the step in hand."""
    steady = s[AMBIENT] + 273.15 + s[HEAT] / cell[COOLING]
    warm = steady + (s[TEMPERATURE] - steady) * math.exp(
        -lived * cell[COOLING] / cell[HEAT_CAPACITY]
    )
    return float(min(max(warm, 200.0), 1500.0))


@compiled
def commit(s: Floats, p: Floats, cell: Floats, volumes: Floats) -> None:
    """Ends the step in hand where it has been lived through: heat, ageing, new start."""
    if s[PENDING] == 0.0:
        return
    s[PENDING] = 0.0
    lived = s[INSIDE]
    if lived <= 0.0:
        return
    at = min(lived / s[STEP], 1.0)
    through = abs(dense(s, Q_CELL, at) - s[Q_CELL])
    for i in range(FAST):
        s[i] = dense(s, i, at)
    warm = arrhenius(cell[AGEING_EA], s[TEMPERATURE]) * lived
    cycles = through / (2.0 * cell[NOMINAL])
    for e in range(2):
        if p[e, INSERTS] != 0.0:
            faster = 1.0 + p[e, LOSS_BY_GROWTH] * (s[GROWTH + e] - 1.0)
            lost = p[e, LOSS_CYCLE] * cycles * faster + p[e, LOSS_S] * warm
            gone = s[ACTIVE + e] * (1.0 - math.exp(-lost))
            s[ACTIVE + e] -= gone
            s[ISOLATED + e] += gone * p[e, CAPACITY] * mean_occupancy(s, e, volumes)
        s[GROWTH + e] += p[e, GROWTH_CYCLE] * cycles + p[e, GROWTH_S] * warm
    s[TEMPERATURE] = temperature_at(s, cell, lived)
    s[SETPOINT] += s[RAMP] * lived
    s[THROUGHPUT] += through
    s[AGE] += lived


@compiled
def crossing(s: Floats, cell: Floats, which: int, target: float, low: float, high: float) -> float:
    """Share of the step between ``low`` and ``high`` where a monotone quantity has just reached
    ``target``; which: 0 voltage, 1 current, 2 magnitude of the current, 3 charge."""
    if which == 3:
        start = dense(s, Q_EXT, low)
    else:
        v, i = readings(s, cell, low)
        start = v if which == 0 else i if which == 1 else abs(i)
    below = start - target
    rising = below < 0.0
    behind = 0
    if which == 3:
        above = dense(s, Q_EXT, high) - target
    else:
        v, i = readings(s, cell, high)
        above = (v if which == 0 else i if which == 1 else abs(i)) - target
    for turn in range(100):
        if high - low <= 1e-15 or above == 0.0:
            break
        middle = 0.5 * (low + high)
        if turn % 4 != 3 and above != below:
            middle = high - above * (high - low) / (above - below)
        if not low < middle < high:
            middle = 0.5 * (low + high)
            if middle <= low or middle >= high:
                break
        if which == 3:
            value = dense(s, Q_EXT, middle) - target
        else:
            v, i = readings(s, cell, middle)
            value = (v if which == 0 else i if which == 1 else abs(i)) - target
        if value == 0.0 or (value > 0.0) == rising:
            high, above = middle, value
            if behind == 1:
                below *= 0.5
            behind = 1
        else:
            low, below = middle, value
            if behind == -1:
                above *= 0.5
            behind = -1
    return high


@compiled
def take_order(s: Floats, order: Floats, p: Floats, cell: Floats, volumes: Floats) -> None:
    """Cuts the step in hand if control, setpoint, ramp, current limit or ambient changed."""
    at = s[SETPOINT]
    if s[PENDING] != 0.0:
        at += s[RAMP] * s[INSIDE]
    same = s[CONTROL] == order[0] and s[RAMP] == order[2]
    same = same and (at == order[1] or (order[0] == SWEEP and abs(at - order[1]) < 1e-9))
    if same and s[CLIP] == order[3] and s[AMBIENT] == order[4]:
        return
    commit(s, p, cell, volumes)
    s[CONTROL], s[SETPOINT], s[RAMP] = order[0], order[1], order[2]
    s[CLIP], s[AMBIENT] = order[3], order[4]
    if not same:
        s[NEXT] = 0.0


@compiled
def walk(
    s: Floats,
    work: Floats,
    p: Floats,
    cell: Floats,
    tables_u: Floats,
    tables_d: Floats,
    grid: Floats,
    order: Floats,
    duration: float,
    until: Floats,
    rule: Floats,
    rows: Floats,
    totals: Floats,
) -> tuple[int, int]:
    """Lives through ``duration``; gives (rows filled, why it stopped).

    order: control, setpoint, ramp, current limit, ambient. until: V high, V low, |I| small,
    |I| large, |charge| Ah. rule: every s, dV, dI, now s, last s, last V, last I (the last four are
    moved on). rows: (n, 6). totals: elapsed s, charge Ah, energy Wh since the caller's call began
    (moved on), then V, I, temperature in degC at the end.
    """
    fac, u, yi, d, start, scratch = work[0:3], work[3:9], work[9], work[10:12], work[12], work[13]
    volumes = grid[0]
    limit = rows.shape[0]
    every = rule[0] if rule[0] > 0.0 else math.inf
    dv = rule[1] if rule[1] > 0.0 else math.inf
    di = rule[2] if rule[2] > 0.0 else math.inf
    clock = rule[3] - totals[0]
    n = 0
    reason = -1
    take_order(s, order, p, cell, volumes)
    while reason < 0:
        if s[PENDING] == 0.0:
            plan_step(s, u, yi, start, scratch, fac, p, cell, d, tables_u, tables_d, grid)
        h, came, passed = s[STEP], s[INSIDE], totals[0]
        left = max(duration - passed, 0.0)
        last_step = came + left <= h
        goal = min((came + left) / h, 1.0) if last_step else 1.0
        at = min(came / h, goal)
        q_at = dense(s, Q_EXT, at)
        forced_record, forced_stop = False, False
        while True:
            v, i = readings(s, cell, at)
            if rule[5] != rule[5]:
                rule[5], rule[6] = v, i
            if v >= until[0]:
                reason = V_HIGH
            elif v <= until[1]:
                reason = V_LOW
            elif abs(i) <= until[2]:
                reason = I_SMALL
            elif abs(i) >= until[3]:
                reason = I_LARGE
            elif forced_stop or abs(totals[1]) >= until[4]:
                reason = CHARGE
            if reason >= 0:
                break
            if forced_record or abs(v - rule[5]) >= dv or abs(i - rule[6]) >= di:
                rows[n, 0] = rule[3]
                rows[n, 1] = v
                rows[n, 2] = i
                rows[n, 3] = totals[1]
                rows[n, 4] = totals[2]
                rows[n, 5] = temperature_at(s, cell, at * h) - 273.15
                n += 1
                rule[4], rule[5], rule[6] = rule[3], v, i
                forced_record = False
                if n == limit:
                    reason = RECORDS
                    break
            if at >= goal:
                if last_step:
                    reason = DURATION
                    totals[0] = duration
                break
            end = goal
            if at < s[TURNS] < end:
                end = s[TURNS]
            elif at < s[TURNS + 1] < end:
                end = s[TURNS + 1]
            v1, i1 = readings(s, cell, end)
            to = end
            if v1 >= until[0]:
                to = min(to, crossing(s, cell, 0, until[0], at, end))
            elif v1 <= until[1]:
                to = min(to, crossing(s, cell, 0, until[1], at, end))
            if abs(i1) <= until[2]:
                to = min(to, crossing(s, cell, 2, until[2], at, end))
            elif abs(i1) >= until[3]:
                to = min(to, crossing(s, cell, 2, until[3], at, end))
            if until[4] < BIG:
                q1 = totals[1] + dense(s, Q_EXT, end) - q_at
                if abs(q1) >= until[4]:
                    aim = math.copysign(until[4], q1) - totals[1] + q_at
                    share = crossing(s, cell, 3, aim, at, end)
                    if share <= to:
                        to, forced_stop = share, True
            before = to
            if abs(v1 - rule[5]) >= dv:
                aim = rule[5] + math.copysign(dv, v1 - rule[5])
                to = min(to, crossing(s, cell, 0, aim, at, end))
            if abs(i1 - rule[6]) >= di:
                aim = rule[6] + math.copysign(di, i1 - rule[6])
                to = min(to, crossing(s, cell, 1, aim, at, end))
            changed = to < before or (
                to == before and to == end and (abs(v1 - rule[5]) >= dv or abs(i1 - rule[6]) >= di)
            )
            share = max((came + (rule[4] + every - clock - passed)) / h, at)
            timed = share <= to
            if timed:
                to = share
            if to < before:
                forced_stop = False
            forced_record = timed or changed
            q = dense(s, Q_EXT, to)
            totals[1] += q - q_at
            totals[2] += energy(s, cell, at, to)
            at, q_at = to, q
            totals[0] = passed + (at * h - came)
            if timed:
                rule[3] = rule[4] + every
            elif at >= goal and last_step:
                totals[0] = duration
                rule[3] = clock + duration
            else:
                rule[3] = clock + totals[0]
        totals[3], totals[4] = v, i
        totals[5] = temperature_at(s, cell, at * h) - 273.15
        s[INSIDE] = at * h
        if at >= 1.0:
            s[INSIDE] = h
            commit(s, p, cell, volumes)
    return n, reason


@compiled
def voltage_at(s: Floats, cell: Floats, current: float) -> float:
    """Terminal voltage if ``current`` were flowing, at the point where the cell stands."""
    series = cell[RS] / arrhenius(cell[RS_EA], s[TEMPERATURE])
    if s[PENDING] != 0.0:
        at = s[INSIDE] / s[STEP]
        phi = dense(s, PHI, at) - dense(s, WIDTH + PHI, at)
    else:
        phi = s[PHI] - s[WIDTH + PHI]
    share = 1.0 / (1.0 + cell[SHORT] * series)
    return float(share * (phi + series * current))


@compiled
def response(
    s: Floats,
    work: Floats,
    p: Floats,
    cell: Floats,
    tables_u: Floats,
    tables_d: Floats,
    grid: Floats,
    w: float,
    out: Floats,
) -> tuple[float, float, float]:
    """The small-signal response of the cell where row 0 stands, current being imposed.

    Fills ``out``, (FAST, FAST), with the inverse of (w - J) by columns. Gives the series
    resistance seen from outside, the share of phi_0 - phi_1 seen there, and of the current.
    """
    fac, d = work[0:3], work[10:12]
    series = prepare(s, p, cell, d)
    y = s[:FAST]
    factor(y, w, fac, 1, 0.0, math.inf, series, p, cell, d, tables_u, tables_d, grid[1], grid[2])
    for i in range(FAST):
        for k in range(FAST):
            out[i, k] = 0.0
        out[i, i] = 1.0
        solve(out[i], w, fac, p)
    share = 1.0 / (1.0 + cell[SHORT] * series)
    return series * share, share, 1.0 - cell[SHORT] * series * share
