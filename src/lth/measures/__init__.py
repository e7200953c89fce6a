"""Measures: tables that are computed from the stored trainings of a run.

A measure is an entry in lth.config.registry.MEASURES and a function

    compute(folder, experiment, stored, **options) -> pd.DataFrame

that returns the whole table: the rows of `stored`, an earlier table or None, and the rows that it lacks.

tables.py    computes a measure by name and stores it as RUN/measures/NAME.csv
tickets.py   the stored tickets of a run
anatomy.py, weight_movement.py     one measure each
beside.py    anatomy in the files that version 0.1 wrote next to each ticket
histograms.py, figures.py          shared code, and the figures of measures
"""
