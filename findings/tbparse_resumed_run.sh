#!/usr/bin/env bash
# Of a resumed run, TensorBoard and tbparse show two different curves.
#
# Versions: tensorboard 2.21.0, tensorboardX 2.6.5, tbparse 0.0.9, pandas 3.0.6, numpy 2.4.6.
# Guess: purge_step, given when a run goes on from a checkpoint, makes the steps after the checkpoint disappear for
#   every reader of the log folder, and without it both readers show the steps twice.
# Seen: TensorBoard's own reader drops what came after the checkpoint. tbparse, which reads through the same library,
#   keeps every value of the lost steps, mixed with the new ones by step; steps that the resumed run never reached
#   remain at the end of the curve. Without purge_step both show the steps twice, as guessed.
# Why it matters: a table made from the log by tbparse takes its last row from a run that was thrown away, while the
#   curve in the browser is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pandas==3.0.6 tensorboard==2.21.0 \
    tensorboardX==2.6.5 tbparse==0.0.9
cd "$work"
"$work/venv/bin/python" - <<'PY'
import time

from tbparse import SummaryReader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter


def curves(folder, purge_step):
    with SummaryWriter(folder) as first:
        for step in range(10):
            first.add_scalar('ari', step, step)
    time.sleep(1.5)  # files are named by the second
    with SummaryWriter(folder, purge_step=purge_step) as resumed:
        for step in range(5, 8):
            resumed.add_scalar('ari', 100 + step, step)
    events = EventAccumulator(folder).Reload().Scalars('ari')
    table = SummaryReader(folder).scalars
    return [(e.step, e.value) for e in events], list(zip(table['step'].tolist(), table['value'].tolist()))


kept = [(step, float(step)) for step in range(5)]
new = [(step, 100.0 + step) for step in range(5, 8)]
lost = [(step, float(step)) for step in range(5, 10)]
board, table = curves('purged', 5)
print('TensorBoard', board)
print('tbparse    ', table)
assert board == kept + new, board
assert sorted(table) == sorted(kept + new + lost), table
assert table[-1] == (9, 9.0), 'the last row must be of the lost run'
board, table = curves('not_purged', None)
assert sorted(board) == sorted(table) == sorted(kept + new + lost)
PY
