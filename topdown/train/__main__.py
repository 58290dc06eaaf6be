"""``python -m topdown.train`` and ``torchrun -m topdown.train``: the command ``topdown train``."""

from topdown.train.loop import main

main()
