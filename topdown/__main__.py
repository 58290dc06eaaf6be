"""``python -m topdown``: the command line."""

from topdown.cli import main

main()
