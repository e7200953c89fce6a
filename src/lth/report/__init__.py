"""The HTML report: a run, or several over each other, as one page that opens without network. No torch here.

    anatomy.py   what is inside a ticket, as small CSVs beside a training's summary: written by the step, read here
    words.py     what the tables say, in sentences
    charts.py    tables -> the values of charts
    explorer.py  small CSVs -> the values of the ticket explorer
    page.py      all of it -> HTML; page.html, page.css and page.js are its template, style and behaviour
    serve.py     the page on 127.0.0.1 while a run lasts
    events.py    the same curves for TensorBoard

This module stays light: the step imports `anatomy` from here.
"""
