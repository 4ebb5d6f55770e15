"""Reading the archive: tables as pandas, units in the names, nothing written.

Current and charge are positive for charging. Capacities per gram are divided by ``active_mass_g``,
retention by ``reference_discharge_Ah``; both stand beside them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import pandas as pd
from sqlalchemy import Connection, Engine, TextClause, select, text
from sqlalchemy.exc import DBAPIError

from labctl.analysis.thinning import FEWEST, rows_to_draw
from labctl.archive import schema
from labctl.archive.database import check, open_engine
from labctl.archive.reading import Wanted, in_order, read_columns
from labctl.archive.verify import VerifyReport, verify_run
from labctl.errors import ArchiveError
from labctl.model import RECORD_COLUMNS


class Archive:
    """An archive opened for reading alone; other programs may write to it meanwhile.

    Every method raises :class:`labctl.errors.ArchiveError` if the database cannot be read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Archive:
        """Open ``sqlite:///file.db`` or ``postgresql://user@host/database``.

        Raises:
            ArchiveError: not an archive, of another schema, or it cannot be reached.
        """
        engine = open_engine(url, read_only=True)
        try:
            check(engine)
        except ArchiveError:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def runs(self) -> pd.DataFrame:
        """Every run, oldest first, by ``run_id``.

        Columns: run_id (index), cell, instrument, channel, recipe_name, recipe_sha256,
        active_mass_g, one_C_mA_per_g, actor, labctl_version, created_unix_s, state, state_reason,
        state_unix_s, outcome, outcome_reason, ended_unix_s, last_seq (known when it has ended),
        complete_through_seq (every sample up to it is here).
        """
        names = (
            "run_id, cell, instrument, channel, recipe_name, recipe_sha256, active_mass_g, "
            '"one_C_mA_per_g", actor, labctl_version, created_unix_s, state, state_reason, '
            "state_unix_s, outcome, outcome_reason, ended_unix_s, last_seq, complete_through_seq"
        )
        frame = self._frame(
            text(f"SELECT {names} FROM runs ORDER BY created_unix_s, run_id")  # noqa: S608
        )
        return frame.astype({"last_seq": "Int64"}).set_index("run_id")

    def cells(self) -> pd.DataFrame:
        """Every registered cell.

        Columns: cell (index), material, active_mass_g, one_C_mA_per_g, safe_voltage_min_V,
        safe_voltage_max_V, area_cm2, max_current_A, note, actor, registered_unix_s, parents (names
        of the cells that it was built from, a tuple).
        """
        frame = self._frame(text("SELECT * FROM cells ORDER BY cell")).set_index("cell")
        lines = self._frame(text("SELECT cell, parent FROM cell_parents ORDER BY cell, parent"))
        parents: dict[str, tuple[str, ...]] = {}
        for cell, parent in zip(lines["cell"], lines["parent"], strict=True):
            parents[cell] = (*parents.get(cell, ()), parent)
        frame["parents"] = pd.Series(
            [parents.get(str(cell), ()) for cell in frame.index], index=frame.index, dtype=object
        )
        return frame

    def samples(
        self,
        run: str,
        cycles: Iterable[int] | None = None,
        columns: Sequence[str] | None = None,
        *,
        steps: Iterable[int] | None = None,
        every: int = 1,
        most: int | None = None,
    ) -> pd.DataFrame:
        """The samples of a run in the order of ``seq``, which is the index.

        Columns: test_time_s, unix_time_s, cycle, step, visit, voltage_V, current_A, charge_Ah,
        energy_Wh (both net since the run began), temperature_degC (NaN where unknown).

        Args:
            cycles: of these cycles alone; 0 is outside any cycle.
            columns: these columns alone.
            steps: of these steps of the program alone, counted from 1.
            every: only samples 1, 1 + every, 1 + 2 * every and so on. Short steps may be missed.
            most: so many samples at the most, chosen so that a plot of the voltage looks the same:
                see :func:`labctl.analysis.thinning.rows_to_draw`. All of them are read for that.

        Raises:
            ArchiveError: no such run or column; or ``every`` or ``most`` is too small.
        """
        wanted = [name for name in (columns or RECORD_COLUMNS) if name != "seq"]
        if unknown := [name for name in wanted if name not in RECORD_COLUMNS]:
            raise ArchiveError(
                f"samples have no column {', '.join(unknown)}; "
                f"they have {', '.join(RECORD_COLUMNS)}"
            )
        if every < 1 or (most is not None and most < FEWEST):
            raise ArchiveError(f"every must be at least 1, and most at least {FEWEST}")
        names = ["seq", *dict.fromkeys(wanted)]
        read = names if most is None else list(dict.fromkeys([*names, "voltage_V"]))
        chosen = Wanted(run_number=self._run_number(run), cycles=cycles, steps=steps, every=every)
        with self._reading() as connection:
            found = in_order(read_columns(connection, chosen, read), read)
        if most is not None:
            rows = rows_to_draw(found["voltage_V"], most)
            found = {name: column[rows] for name, column in found.items()}
        return pd.DataFrame({name: found[name] for name in names}).set_index("seq")

    def cycles(self, run: str | None = None) -> pd.DataFrame:
        """The cycles of one run, or of all, by ``run_id`` and ``cycle``.

        Columns: cell, cycle_class, complete, interrupted, comparable, charge_mAh_g,
        discharge_mAh_g, active_mass_g, coulombic_efficiency, retention (fractions; retention only
        where the cycle can be compared), reference_discharge_Ah and reference_cycles (the median of
        which retention is divided by), charge_Ah, discharge_Ah, charge_Wh, discharge_Wh,
        mean_charge_voltage_V, mean_discharge_voltage_V, voltage_min_V, voltage_max_V,
        current_min_A, current_max_A, duration_s, end_test_time_s, end_unix_time_s, first_seq,
        last_seq, charge_Wh_kg, discharge_Wh_kg. Figures are NaN until all of the cycle's samples
        are here.

        Raises:
            ArchiveError: no such run.
        """
        where = "" if run is None else "WHERE run_id = :run"
        query = text(f"SELECT * FROM cycles_named {where} ORDER BY run_id, cycle")  # noqa: S608
        if run is not None:
            self._run_number(run)
            query = query.bindparams(run=run)
        frame = self._frame(query)
        for name in ("complete", "interrupted", "comparable"):
            frame[name] = frame[name].astype("boolean")
        return frame.set_index(["run_id", "cycle"])

    def steps(self, run: str) -> pd.DataFrame:
        """Every visit to a step of a run, by ``visit``.

        Columns: step, cycle, label, technique, first_seq, last_seq, start_test_time_s,
        end_test_time_s, end_voltage_V, end_current_A, ended_by, charge_Ah, discharge_Ah, charge_Wh,
        discharge_Wh, charge_mAh_g, discharge_mAh_g, active_mass_g.

        Raises:
            ArchiveError: no such run.
        """
        self._run_number(run)
        frame = self._frame(
            text("SELECT * FROM steps_named WHERE run_id = :run ORDER BY visit").bindparams(run=run)
        )
        return frame.drop(columns=["run_id", "cell"]).set_index("visit")

    def spectra(self, run: str) -> pd.DataFrame:
        """The impedance spectra of a run, a row a frequency, by ``spectrum`` and ``point``.

        Columns: visit, step, cycle, after_seq (the last sample before it), test_time_s,
        unix_time_s, frequency_Hz, impedance_real_ohm, impedance_imag_ohm (negative for a
        capacitor), voltage_V, current_A, temperature_degC (all three of the working point).

        Raises:
            ArchiveError: no such run.
        """
        self._run_number(run)
        query = text("SELECT * FROM spectra_named WHERE run_id = :run ORDER BY spectrum, point")
        frame = self._frame(query.bindparams(run=run)).drop(columns=["run_id", "cell"])
        whole = ["spectrum", "point", "visit", "step", "cycle", "after_seq"]
        types = {name: "int64" if name in whole else "float64" for name in frame.columns}
        return frame.astype(types).set_index(["spectrum", "point"])

    def markers(self, run: str) -> pd.DataFrame:
        """The markers of a run, in order: what it told others, and what it was told.

        Columns: marker, direction (sent or received), seq, cycle, test_time_s, unix_time_s, actor,
        and of the sample that it was set at: voltage_V, current_A, charge_Ah, charge_mAh_g (both
        net since the run began), active_mass_g.

        Raises:
            ArchiveError: no such run.
        """
        self._run_number(run)
        query = text(
            "SELECT * FROM markers_named WHERE run_id = :run ORDER BY batch_number, position"
        )
        frame = self._frame(query.bindparams(run=run))
        frame = frame.drop(columns=["run_id", "cell", "batch_number", "position"])
        words, whole = ("marker", "direction", "actor"), ("seq", "cycle")
        return frame.astype(
            {
                name: "int64" if name in whole else "float64"
                for name in frame.columns
                if name not in words
            }
        )

    def events(self, subject: str) -> pd.DataFrame:
        """What else happened to a run, a cell or an instrument, in order.

        Columns: kind (``run_state_changed``, ``gap_recorded``, ``branch_taken`` and so on; see
        labctl/stream/events.py), unix_time_s (NaN where the event has none), detail (the event, a
        dict).
        """
        query = text(
            "SELECT kind, unix_time_s, detail FROM events WHERE subject = :subject "
            "ORDER BY source, number, position"
        )
        frame = self._frame(query.bindparams(subject=subject)).astype({"unix_time_s": "float64"})
        details = [json.loads(detail) for detail in frame["detail"]]
        frame["detail"] = pd.Series(details, index=frame.index, dtype=object)
        return frame

    def alarms(self) -> pd.DataFrame:
        """Every alarm that there ever was, by ``alarm_number``, as it stands now.

        Columns: run_id, cell, rule, rule_number, cycle_class, priority, state, active, verdict,
        message, value, limit_value, unit, reference, reference_unit, cycles, reference_cycles,
        cycle (after which it last changed), unix_time_s (when).
        """
        frame = self._frame(text("SELECT * FROM alarms_named ORDER BY alarm_number"))
        frame["active"] = frame["active"].astype("boolean")
        return frame.set_index("alarm_number")

    def alarm_events(self) -> pd.DataFrame:
        """Every change of an alarm, by ``alarm_event_number``; see the table ``alarm_events``."""
        frame = self._frame(text("SELECT * FROM alarm_events ORDER BY alarm_event_number"))
        return frame.set_index("alarm_event_number")

    def verify(self, run: str) -> VerifyReport:
        """Whether a run is complete and its figures follow from its samples.

        Raises:
            ArchiveError: no such run.
        """
        with self._reading() as connection:
            return verify_run(connection, run)

    def sample_rows(
        self, run: str, cycles: Iterable[int] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """The samples of a run as rows of :data:`labctl.model.RECORD_COLUMNS`, in order of seq.

        Read in pieces: a run need not fit into memory.

        Raises:
            ArchiveError: no such run.
        """
        run_number = self._run_number(run)
        names = tuple(RECORD_COLUMNS)
        query = select(*(schema.samples.c[name] for name in names)).where(
            schema.samples.c.run_number == run_number
        )
        if cycles is not None:
            query = query.where(schema.samples.c.cycle.in_(list(cycles)))
        query = query.order_by(schema.samples.c.seq).execution_options(yield_per=10_000)
        with self._reading() as connection:
            for row in connection.execute(query):
                yield tuple(row)

    def _run_number(self, run: str) -> int:
        runs = schema.runs
        with self._reading() as connection:
            number = connection.execute(
                select(runs.c.run_number).where(runs.c.run_id == run)
            ).scalar_one_or_none()
        if number is None:
            raise ArchiveError(f"there is no run {run!r} in the archive")
        return int(number)

    def _frame(self, query: TextClause) -> pd.DataFrame:
        with self._reading() as connection:
            return pd.read_sql_query(query, connection)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise ArchiveError(f"the archive cannot be read: {error.orig}") from error
