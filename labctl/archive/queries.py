"""Reading the archive: tables as pandas, units in the names, nothing written.

Current and charge are positive for charging. Capacities per gram are divided by ``active_mass_g``,
retention by ``reference_discharge_Ah``; both stand beside them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, TextClause, select, text
from sqlalchemy.exc import DBAPIError

from labctl.archive import schema
from labctl.archive.database import check, open_engine
from labctl.archive.reading import read_columns, samples_query
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
    ) -> pd.DataFrame:
        """The samples of a run in the order of ``seq``, which is the index.

        Columns: test_time_s, unix_time_s, cycle, step, visit, voltage_V, current_A, charge_Ah,
        energy_Wh (both net since the run began), temperature_degC (NaN where unknown).

        Args:
            cycles: of these cycles alone; 0 is outside any cycle.
            columns: these columns alone.

        Raises:
            ArchiveError: no such run or column.
        """
        wanted = [name for name in (columns or RECORD_COLUMNS) if name != "seq"]
        if unknown := [name for name in wanted if name not in RECORD_COLUMNS]:
            raise ArchiveError(
                f"samples have no column {', '.join(unknown)}; "
                f"they have {', '.join(RECORD_COLUMNS)}"
            )
        names = ["seq", *wanted]
        blocks = list(self._sample_blocks(run, names, cycles))
        found = {
            name: np.concatenate([block[name] for block in blocks])
            if blocks
            else np.empty(0, dtype=RECORD_COLUMNS[name])
            for name in names
        }
        seq = found["seq"]
        if len(seq) > 1 and not bool((np.diff(seq) > 0).all()):
            order = np.argsort(seq, kind="stable")
            found = {name: column[order] for name, column in found.items()}
        return pd.DataFrame(found).set_index("seq")

    def cycles(self, run: str | None = None) -> pd.DataFrame:
        """The cycles of one run, or of all, by ``run_id`` and ``cycle``.

        Columns: cell, cycle_class, complete, interrupted, comparable, charge_mAh_g,
        discharge_mAh_g, active_mass_g, coulombic_efficiency, retention (fractions; retention only
        where the cycle can be compared), reference_discharge_Ah and reference_cycles (the median of
        which retention is divided by), charge_Ah, discharge_Ah, charge_Wh, discharge_Wh,
        mean_charge_voltage_V, mean_discharge_voltage_V, voltage_min_V, voltage_max_V,
        current_min_A, current_max_A, duration_s, end_test_time_s, end_unix_time_s, first_seq,
        last_seq. Figures are NaN until all of the cycle's samples are here.

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
        discharge_Wh.

        Raises:
            ArchiveError: no such run.
        """
        self._run_number(run)
        frame = self._frame(
            text("SELECT * FROM steps_named WHERE run_id = :run ORDER BY visit").bindparams(run=run)
        )
        return frame.drop(columns=["run_id", "cell"]).set_index("visit")

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
        query = samples_query(names).where(schema.samples.c.run_number == run_number)
        if cycles is not None:
            query = query.where(schema.samples.c.cycle.in_(list(cycles)))
        query = query.order_by(schema.samples.c.seq).execution_options(yield_per=10_000)
        with self._reading() as connection:
            for row in connection.execute(query):
                yield tuple(row)

    def _sample_blocks(
        self, run: str, names: Sequence[str], cycles: Iterable[int] | None
    ) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        run_number = self._run_number(run)
        query = samples_query(names).where(schema.samples.c.run_number == run_number)
        if cycles is not None:
            query = query.where(schema.samples.c.cycle.in_([int(cycle) for cycle in cycles]))
        with self._reading() as connection:
            yield from read_columns(connection, query, names)

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
