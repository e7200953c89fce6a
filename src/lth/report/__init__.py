"""The HTML report: one run, or several overlaid, as a page that needs no network. No torch here.

words.py     the results as sentences
charts.py    the values of the charts, from the tables
explorer.py  the values of the ticket explorer, from the anatomy of tickets
beside.py    claims and curves of papers for these runs
page.py      the HTML page, in the sections of sections.py; page.html, page.css and the scripts are its template, style
             and behaviour
publish.py   figures and page of finished runs
serve.py     the page on 127.0.0.1 during a run
events.py    the same curves for TensorBoard
"""
