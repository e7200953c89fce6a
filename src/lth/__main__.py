"""`python -m lth`: the command line."""

from lth.cli import main

main()
