"""The views of the archive: names instead of numbers, mAh/g, and what was divided by.

Views hold no data: they are dropped and made again at every change of the schema.
"""

from __future__ import annotations

from sqlalchemy import Connection

VIEWS: dict[str, str] = {
    "samples_named": """
        SELECT runs.run_id, runs.cell, samples.seq, samples.test_time_s, samples.unix_time_s,
               samples.cycle, samples.step, samples.visit, samples."voltage_V",
               samples."current_A", samples."charge_Ah", samples."energy_Wh",
               samples."temperature_degC",
               1000 * samples."charge_Ah" / NULLIF(runs.active_mass_g, 0) AS "charge_mAh_g",
               runs.active_mass_g
        FROM samples JOIN runs ON runs.run_number = samples.run_number
    """,
    "steps_named": """
        SELECT runs.run_id, runs.cell, steps.visit, steps.step, steps.cycle, steps.label,
               steps.technique, steps.first_seq, steps.last_seq, steps.start_test_time_s,
               steps.end_test_time_s, steps."end_voltage_V", steps."end_current_A",
               steps.ended_by, steps."charge_Ah", steps."discharge_Ah", steps."charge_Wh",
               steps."discharge_Wh",
               1000 * steps."charge_Ah" / NULLIF(runs.active_mass_g, 0) AS "charge_mAh_g",
               1000 * steps."discharge_Ah" / NULLIF(runs.active_mass_g, 0) AS "discharge_mAh_g",
               runs.active_mass_g
        FROM steps JOIN runs ON runs.run_number = steps.run_number
    """,
    "cycles_named": """
        SELECT runs.run_id, runs.cell, cycles.cycle, cycles.cycle_class, cycles.complete,
               cycles.interrupted, cycles.comparable,
               1000 * cycles."charge_Ah" / NULLIF(runs.active_mass_g, 0) AS "charge_mAh_g",
               1000 * cycles."discharge_Ah" / NULLIF(runs.active_mass_g, 0) AS "discharge_mAh_g",
               runs.active_mass_g,
               cycles.coulombic_efficiency,
               CASE WHEN cycles.comparable
                    THEN cycles."discharge_Ah"
                         / NULLIF(retention_references."reference_discharge_Ah", 0)
               END AS retention,
               retention_references."reference_discharge_Ah",
               retention_references.reference_cycles,
               cycles."charge_Ah", cycles."discharge_Ah", cycles."charge_Wh",
               cycles."discharge_Wh", cycles."mean_charge_voltage_V",
               cycles."mean_discharge_voltage_V", cycles."voltage_min_V",
               cycles."voltage_max_V", cycles."current_min_A", cycles."current_max_A",
               cycles.duration_s, cycles.end_test_time_s, cycles.end_unix_time_s,
               cycles.first_seq, cycles.last_seq,
               1000 * cycles."charge_Wh" / NULLIF(runs.active_mass_g, 0) AS "charge_Wh_kg",
               1000 * cycles."discharge_Wh" / NULLIF(runs.active_mass_g, 0) AS "discharge_Wh_kg"
        FROM cycles JOIN runs ON runs.run_number = cycles.run_number
        LEFT JOIN retention_references
               ON retention_references.run_number = cycles.run_number
              AND retention_references.cycle_class = cycles.cycle_class
    """,
    "spectra_named": """
        SELECT runs.run_id, runs.cell, spectra.spectrum, spectra.point, spectra.visit,
               spectra.step, spectra.cycle, spectra.after_seq, spectra.test_time_s,
               spectra.unix_time_s, spectra."frequency_Hz", spectra.impedance_real_ohm,
               spectra.impedance_imag_ohm, spectra."voltage_V", spectra."current_A",
               spectra."temperature_degC"
        FROM spectra JOIN runs ON runs.run_number = spectra.run_number
    """,
    "markers_named": """
        SELECT runs.run_id, runs.cell, markers.batch_number, markers.position, markers.marker,
               markers.direction, markers.seq, markers.cycle, markers.test_time_s,
               markers.unix_time_s, markers.actor, samples."voltage_V", samples."current_A",
               samples."charge_Ah",
               1000 * samples."charge_Ah" / NULLIF(runs.active_mass_g, 0) AS "charge_mAh_g",
               runs.active_mass_g
        FROM markers JOIN runs ON runs.run_number = markers.run_number
        LEFT JOIN steps
               ON steps.run_number = markers.run_number
              AND markers.seq BETWEEN steps.first_seq AND steps.last_seq
        LEFT JOIN samples
               ON samples.run_number = markers.run_number
              AND samples.cycle = COALESCE(steps.cycle, markers.cycle)
              AND samples.seq = markers.seq
    """,
    "alarms_named": """
        SELECT alarms.alarm_number, runs.run_id, runs.cell, alarms.rule, alarms.rule_number,
               alarms.cycle_class, alarms.priority, alarms.state, alarms.active,
               alarms.verdict, alarms.message, alarms.value, alarms.limit_value, alarms.unit,
               alarms.reference, alarms.reference_unit, alarms.cycles, alarms.reference_cycles,
               alarms.cycle, alarms.unix_time_s, alarms.subject, alarms.shelved_until_unix_s,
               alarms.aside_actor, alarms.aside_reason
        FROM alarms LEFT JOIN runs ON runs.run_number = alarms.run_number
    """,
}


def drop_views(connection: Connection) -> None:
    """Drop every view that this program knows."""
    for name in VIEWS:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def create_views(connection: Connection) -> None:
    """Make every view anew."""
    drop_views(connection)
    for name, query in VIEWS.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")
