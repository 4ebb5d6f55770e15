"""Reading the archive: tables as pandas, units in the names, nothing written.

Current and charge are positive for charging. Capacities per gram are divided by ``active_mass_g``,
retention by ``reference_discharge_Ah``; both stand beside them. Times that begin with ``unix`` are
seconds since 1970 UTC; columns that end in ``_utc`` are the same as pandas' times. A frame has the
same columns of the same types if there is nothing in it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from sqlalchemy import Connection, Engine, Table, TextClause, text
from sqlalchemy.exc import DBAPIError

from labctl.analysis.thinning import FEWEST, rows_to_draw
from labctl.archive import schema
from labctl.archive.asking import (
    OPEN,
    UTC,
    Between,
    Numbers,
    columns_of,
    frame_of,
    wanted_samples,
)
from labctl.archive.database import check, open_engine
from labctl.archive.exporting import Progress, What, export_table, files_of, format_named
from labctl.archive.frames import typed, utc
from labctl.archive.headers import RunHeader, read_header
from labctl.archive.packing_files import Block
from labctl.archive.packing_notes import note_of
from labctl.archive.reading import Range, Wanted, in_order, read_columns
from labctl.archive.streaming import read_in_order
from labctl.archive.verify import VerifyReport, verify_run
from labctl.errors import ArchiveError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1_000_000


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
        complete_through_seq (every sample up to it is here), created_utc, ended_utc.
        """
        names = (
            "run_id, cell, instrument, channel, recipe_name, recipe_sha256, active_mass_g, "
            '"one_C_mA_per_g", actor, labctl_version, created_unix_s, state, state_reason, '
            "state_unix_s, outcome, outcome_reason, ended_unix_s, last_seq, complete_through_seq"
        )
        frame = self._frame(
            text(f"SELECT {names} FROM runs ORDER BY created_unix_s, run_id")  # noqa: S608
        )
        frame = typed(frame, schema.runs)
        frame["created_utc"] = utc(frame["created_unix_s"])
        frame["ended_utc"] = utc(frame["ended_unix_s"])
        return frame.set_index("run_id")

    def cells(self) -> pd.DataFrame:
        """Every registered cell.

        Columns: cell (index), material, active_mass_g, one_C_mA_per_g, safe_voltage_min_V,
        safe_voltage_max_V, area_cm2, max_current_A, note, actor, registered_unix_s, cell_type,
        parents (names of the cells that it was built from, a tuple).
        """
        frame = typed(self._frame(text("SELECT * FROM cells ORDER BY cell")), schema.cells)
        frame = frame.set_index("cell")
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
        cycle: Numbers | None = None,
        columns: Sequence[str] | None = None,
        *,
        step: Numbers | None = None,
        visit: Numbers | None = None,
        test_time_s: Range = OPEN,
        between: Between = OPEN,
        last_s: float | None = None,
        every: int = 1,
        points: int | None = None,
    ) -> pd.DataFrame:
        """The samples of a run in the order of ``seq``, which is the index.

        Columns: test_time_s, unix_time_s, cycle, step, visit, voltage_V, current_A, charge_Ah,
        energy_Wh (both net since the run began), temperature_degC (NaN where unknown); and if it is
        asked for, time_utc.

        Args:
            cycle: of this cycle or these cycles alone; 0 is outside any cycle, -1 the last.
            columns: these columns alone.
            step: of this step or these steps of the program alone, counted from 1.
            visit: of this visit or these visits to a step alone.
            test_time_s: from and to, since the run began, both included; None is open.
            between: the same as times of day, seconds since 1970 UTC or times with a zone.
            last_s: so many seconds before the last sample of the run, and that.
            every: only samples 1, 1 + every, 1 + 2 * every and so on. Short steps may be missed.
            points: so many samples at the most, chosen so that a plot of the voltage looks the
                same: see :func:`labctl.analysis.thinning.rows_to_draw`. All of them are read for
                that.

        Raises:
            ArchiveError: no such run or column; ``every`` or ``points`` is too small; the run is
                packed and its file is not there or damaged, or a policy had it removed.
        """
        if points is not None and points < FEWEST:
            raise ArchiveError(f"points must be at least {FEWEST}")
        asked, names = columns_of(columns)
        read = names if points is None else list(dict.fromkeys([*names, "voltage_V"]))
        number = self.header(run).run_number
        with self._reading() as connection:
            wanted = wanted_samples(
                connection, number, cycle, step, visit, test_time_s, between, last_s, every
            )
            found = in_order(read_columns(connection, wanted, read, in_bulk=True), read)
        if points is not None:
            rows = rows_to_draw(found["voltage_V"], points)
            found = {name: column[rows] for name, column in found.items()}
        return frame_of(found, asked)

    def iter_samples(
        self,
        run: str,
        cycle: Numbers | None = None,
        columns: Sequence[str] | None = None,
        *,
        rows: int = ROWS_AT_ONCE,
        step: Numbers | None = None,
        visit: Numbers | None = None,
        test_time_s: Range = OPEN,
        between: Between = OPEN,
        last_s: float | None = None,
        every: int = 1,
    ) -> Iterator[pd.DataFrame]:
        """The same as :meth:`samples`, ``rows`` at a time: a run need not fit into memory.

        Raises:
            ArchiveError: no such run or column; or ``every`` or ``rows`` is too small.
        """
        asked, names = columns_of(columns)
        for block in self._blocks(
            run, names, rows, (cycle, step, visit, test_time_s, between, last_s, every)
        ):
            yield frame_of(block, asked)

    def iter_arrow(
        self,
        run: str,
        cycle: Numbers | None = None,
        columns: Sequence[str] | None = None,
        *,
        rows: int = ROWS_AT_ONCE,
        step: Numbers | None = None,
        visit: Numbers | None = None,
        test_time_s: Range = OPEN,
        between: Between = OPEN,
        last_s: float | None = None,
        every: int = 1,
    ) -> Iterator[pa.RecordBatch]:
        """The same as :meth:`iter_samples`, with ``seq`` first, as batches of Apache Arrow.

        Raises:
            ArchiveError: as there; or pyarrow is not installed.
        """
        from labctl.archive.arrow import as_batch

        asked, names = columns_of(columns)
        if UTC in asked:
            raise ArchiveError(f"batches have no column {UTC}; they have unix_time_s")
        for block in self._blocks(
            run, names, rows, (cycle, step, visit, test_time_s, between, last_s, every)
        ):
            yield as_batch(block)

    def _blocks(
        self, run: str, names: Sequence[str], rows: int, choice: tuple[Any, ...]
    ) -> Iterator[Block]:
        if rows < 1:
            raise ArchiveError("rows must be at least 1")
        header = self.header(run)
        with self._reading() as connection:
            wanted = wanted_samples(connection, header.run_number, *choice)
            yield from read_in_order(connection, wanted, names, present=header.present, rows=rows)

    def cycles(self, run: str | None = None, *, cell: str | None = None) -> pd.DataFrame:
        """The cycles of one run, of all runs of a cell, or of all, by ``run_id`` and ``cycle``.

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
        given = {name: value for name, value in (("run_id", run), ("cell", cell)) if value}
        if run is not None:
            self.header(run)
        where = "".join(f" AND {name} = :{name}" for name in given)
        query = text(f"SELECT * FROM cycles_named WHERE 1 = 1{where} ORDER BY run_id, cycle")  # noqa: S608
        frame = typed(
            self._frame(query.bindparams(**given)),
            schema.cycles,
            schema.runs,
            schema.retention_references,
            words=["cycle_class"],
        )
        return frame.set_index(["run_id", "cycle"])

    def steps(self, run: str) -> pd.DataFrame:
        """Every visit to a step of a run, by ``visit``.

        Columns: step, cycle, label, technique, first_seq, last_seq, start_test_time_s,
        end_test_time_s, end_voltage_V, end_current_A, ended_by, charge_Ah, discharge_Ah, charge_Wh,
        discharge_Wh, charge_mAh_g, discharge_mAh_g, active_mass_g.

        Raises:
            ArchiveError: no such run.
        """
        frame = self._of_run(run, "steps_named", "visit", schema.steps, words=["technique"])
        return frame.set_index("visit")

    def spectra(self, run: str) -> pd.DataFrame:
        """The impedance spectra of a run, a row a frequency, by ``spectrum`` and ``point``.

        Columns: visit, step, cycle, after_seq (the last sample before it), test_time_s,
        unix_time_s, frequency_Hz, impedance_real_ohm, impedance_imag_ohm (negative for a
        capacitor), voltage_V, current_A, temperature_degC (all three of the working point).

        Raises:
            ArchiveError: no such run.
        """
        frame = self._of_run(run, "spectra_named", "spectrum, point", schema.spectra)
        return frame.set_index(["spectrum", "point"])

    def markers(self, run: str) -> pd.DataFrame:
        """The markers of a run, in order: what it told others, and what it was told.

        Columns: marker, direction (sent or received), seq, cycle, test_time_s, unix_time_s, actor,
        and of the sample that it was set at: voltage_V, current_A, charge_Ah, charge_mAh_g (both
        net since the run began), active_mass_g.

        Raises:
            ArchiveError: no such run.
        """
        frame = self._of_run(run, "markers_named", "batch_number, position", schema.markers)
        return self._with_packed(run, frame.drop(columns=["batch_number", "position"]))

    def _with_packed(self, run: str, markers: pd.DataFrame) -> pd.DataFrame:
        """What the view cannot say of a packed run: the samples that its markers were set at."""
        names = ["seq", "voltage_V", "current_A", "charge_Ah"]
        with self._reading() as connection:
            number = read_header(connection, run).run_number
            note = note_of(connection, number)
            if note is None or note.removed or not len(markers):
                return markers
            wanted = Wanted(
                run_number=number,
                first_seq=int(markers["seq"].min()),
                last_seq=int(markers["seq"].max()),
            )
            found = in_order(read_columns(connection, wanted, names), names)
        samples = pd.DataFrame(found).set_index("seq").reindex(markers["seq"])
        for name in names[1:]:
            markers[name] = samples[name].to_numpy()
        mass_g = markers["active_mass_g"].mask(markers["active_mass_g"] == 0)
        markers["charge_mAh_g"] = 1000 * markers["charge_Ah"] / mass_g
        return markers

    def events(self, subject: str | None = None, *, kind: str | None = None) -> pd.DataFrame:
        """What else happened to a run, a cell or an instrument, or to all, in order.

        Columns: kind (``run_state_changed``, ``gap_recorded``, ``branch_taken`` and so on; see
        labctl/stream/events.py), unix_time_s (NaN where the event has none), detail (the event, a
        dict), subject, time_utc.

        Args:
            kind: of this kind alone.
        """
        given = {name: value for name, value in (("subject", subject), ("kind", kind)) if value}
        where = "".join(f" AND {name} = :{name}" for name in given)
        query = text(
            f"SELECT kind, unix_time_s, detail, subject FROM events WHERE 1 = 1{where} "  # noqa: S608
            "ORDER BY source, number, position"
        )
        frame = typed(self._frame(query.bindparams(**given)), schema.events, words=["kind"])
        details = [json.loads(detail) for detail in frame["detail"]]
        frame["detail"] = pd.Series(details, index=frame.index, dtype=object)
        frame["time_utc"] = utc(frame["unix_time_s"])
        return frame

    def alarms(self) -> pd.DataFrame:
        """Every alarm that there ever was, by ``alarm_number``, as it stands now.

        Columns: run_id, cell, rule, rule_number, cycle_class, priority, state, active, verdict,
        message, value, limit_value, unit, reference, reference_unit, cycles, reference_cycles,
        cycle (after which it last changed), unix_time_s (when), subject (of an alarm about no run),
        shelved_until_unix_s, aside_actor, aside_reason.
        """
        frame = typed(
            self._frame(text("SELECT * FROM alarms_named ORDER BY alarm_number")),
            schema.alarms,
            schema.runs,
        )
        return frame.set_index("alarm_number")

    def alarm_events(self) -> pd.DataFrame:
        """Every change of an alarm, by ``alarm_event_number``; see the table ``alarm_events``."""
        frame = typed(
            self._frame(text("SELECT * FROM alarm_events ORDER BY alarm_event_number")),
            schema.alarm_events,
        )
        return frame.set_index("alarm_event_number")

    def verify(self, run: str) -> VerifyReport:
        """Whether a run is complete and its figures follow from its samples.

        A packed run's file that is not there or damaged is one of its problems.

        Raises:
            ArchiveError: no such run.
        """
        with self._reading() as connection:
            return verify_run(connection, run, in_bulk=True)

    def export(
        self,
        runs: str | Sequence[str],
        to: str | Path,
        *,
        format: str | None = None,  # noqa: A002
        what: What | Sequence[What] = "samples",
        remarks: bool = False,
        replace: bool = True,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Write runs to files, a part at a time: a run need not fit into memory.

        A file is whole or not there. One table goes into the file ``to``; several go into the
        folder ``to``, a file each, named after the run.

        Args:
            format: csv, parquet or bdf; left out, as the name of the file ends.
            what: samples, cycles or steps, or several of them.
            remarks: begin a CSV file with lines that say what the run was, each after a #.
            replace: write files anew that are there already. Otherwise they are passed over, so
                that an export of many runs that was broken off goes on.
            progress: told the run, how many of its rows are written, and how many there are.

        Returns:
            The files that were written.

        Raises:
            ArchiveError: no such run or format, or a file cannot be written.
        """
        names = [runs] if isinstance(runs, str) else list(runs)
        tables: Sequence[What] = [what] if isinstance(what, str) else list(what)
        kind = format_named(format, Path(to))
        written = []
        for (run, table), path in files_of(names, Path(to), kind, tables).items():
            if replace or not path.exists():
                export_table(self, run, table, path, kind, remarks=remarks, progress=progress)
                written.append(path)
        return written

    def header(self, run: str) -> RunHeader:
        """What is said of a run beside its samples.

        Raises:
            ArchiveError: no such run; the message names those of the most alike names.
        """
        with self._reading() as connection:
            return read_header(connection, run)

    def _of_run(
        self, run: str, view: str, order: str, *tables: Table, words: Iterable[str] = ()
    ) -> pd.DataFrame:
        self.header(run)
        query = text(f"SELECT * FROM {view} WHERE run_id = :run ORDER BY {order}")  # noqa: S608
        frame = self._frame(query.bindparams(run=run)).drop(columns=["run_id", "cell"])
        return typed(frame, *tables, words=words)

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
