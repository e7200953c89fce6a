"""The HTML report: a run, or several overlaid, as one page that opens without network. No torch here.

words.py     the tables in sentences
charts.py    tables -> the values of charts
explorer.py  the anatomy of tickets -> the values of the ticket explorer
beside.py    what papers have on these runs
page.py      all of it -> HTML, in sections.py's parts; page.html, page.css and the scripts are its template, style and
             behaviour
publish.py   figures and the page of finished runs
serve.py     the page on 127.0.0.1 while a run lasts
events.py    the same curves for TensorBoard
"""
