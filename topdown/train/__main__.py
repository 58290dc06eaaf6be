"""``torchrun -m topdown.train`` and ``python -m topdown.train``: the command ``topdown train``."""

import sys

from topdown.cli import main

main(['train', *sys.argv[1:]])
