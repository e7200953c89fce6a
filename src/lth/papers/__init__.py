"""The paper beside a run: what it plots and claims, as data, and how a run is held against it. No torch here.

setups.py    the paper's experiments, each a preset and what is changed in it; which of them a run repeats
curves.py    the curves of its figures, read off its vector graphics: reference_curves.csv.gz
measure.py   what a claim is measured by: differences and quotients over trials, with intervals
claims.py    its claims that can be checked, each with its figure and its measures
verify.py    the score card

"The paper" is Frankle & Carbin, The Lottery Ticket Hypothesis, ICLR 2019, in its last version, arXiv 1803.03635v5:
earlier ones have other numbers.
"""
