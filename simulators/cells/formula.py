"""Molar mass and theoretical capacity from a chemical formula.

Atomic weights in g/mol: IUPAC/CIAAW abridged standard atomic weights, 2021. Faraday constant:
CODATA 2018.
"""

from __future__ import annotations

import re

FARADAY_C_PER_MOL = 96485.33212
MOLAR_MASS_G_PER_MOL = {
    "H": 1.0080,
    "Li": 6.94,
    "C": 12.011,
    "N": 14.007,
    "O": 15.999,
    "F": 18.998,
    "Na": 22.990,
    "Mg": 24.305,
    "Al": 26.982,
    "P": 30.974,
    "Ti": 47.867,
    "V": 50.942,
    "Cr": 51.996,
    "Mn": 54.938,
    "Fe": 55.845,
    "Co": 58.933,
    "Ni": 58.693,
    "Zr": 91.224,
}
_TOKEN = re.compile(r"([A-Z][a-z]?|\(|\))(\d+(?:\.\d+)?)?")


def composition(formula: str) -> dict[str, float]:
    """Atoms of each element in a formula unit, brackets multiplied out.

    Raises ValueError for an unknown element or for text that is not a formula.
    """
    stack: list[dict[str, float]] = [{}]
    place = 0
    for token in _TOKEN.finditer(formula):
        if token.start() != place or (token[1] == "(" and token[2]):
            break
        place = token.end()
        count = float(token[2] or 1)
        if token[1] == "(":
            stack.append({})
            continue
        if token[1] == ")":
            if len(stack) == 1:
                raise ValueError(f"{formula!r} closes a bracket that it never opened")
            group = stack.pop()
        elif token[1] in MOLAR_MASS_G_PER_MOL:
            group = {token[1]: 1.0}
        else:
            raise ValueError(f"{formula!r} has an element that is not known: {token[1]}")
        for element, atoms in group.items():
            stack[-1][element] = stack[-1].get(element, 0.0) + atoms * count
    if place != len(formula) or len(stack) != 1 or not stack[0]:
        raise ValueError(f"{formula!r} is not a chemical formula from column {place + 1} on")
    return stack[0]


def molar_mass_g_per_mol(formula: str) -> float:
    """Molar mass of a formula such as ``Na3V2(PO4)3``, in g/mol; ValueError as in composition."""
    return sum(
        MOLAR_MASS_G_PER_MOL[element] * atoms for element, atoms in composition(formula).items()
    )


def capacity_mAh_per_g(formula: str, ions: float) -> float:
    """Charge of ``ions`` singly charged ions per formula unit, in mAh per gram of the formula."""
    return ions * FARADAY_C_PER_MOL / 3.6 / molar_mass_g_per_mol(formula)
