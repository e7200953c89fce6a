"""Measures: tables that are computed from the stored trainings of a run.

A measure is an entry of lth.config.registry.MEASURES and a function

    compute(folder, experiment, stored, **options) -> pd.DataFrame

that returns the whole table: the rows of `stored`, an earlier table or None, and those that are missing in it.

tables.py    computes a measure by name and keeps it in RUN/measures/NAME.csv
tickets.py   the stored tickets of a run
anatomy.py, weight_movement.py     a measure each
beside.py    anatomy in the files that version 0.1 wrote beside each ticket
histograms.py, figures.py          what measures share, and their figures
"""
