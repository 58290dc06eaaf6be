#!/usr/bin/env bash
# A ConfigDict's check of types can be switched off, or turned round, by an assignment that passes.
#
# Versions: ml_collections 1.1.0.
# Guess: a field keeps the type of its first value: whole numbers become floats in a float field, everything else of
#   another type is refused. Only a field that began as None takes anything, once. A copy is independent.
# Seen: a float where an int was is refused, an int in a float field becomes 1.0: as guessed. But True is taken by an
#   int field and makes it a bool field, which then refuses 100. After None any type is taken, in place of a float
#   too. A FrozenConfigDict never equals the ConfigDict it was made from. ConfigDict(other) shares its nested parts: a
#   change in the copy is one in both.
# Why it matters: configurations of Slot Attention's, SAVi's and many JAX code bases are ConfigDicts; sweeps copy and
#   overwrite them, and a nested change then leaks into the run beside it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install ml_collections==1.1.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
from ml_collections import ConfigDict, FrozenConfigDict


def refused(config, name, value):
    try:
        config[name] = value
    except TypeError as error:
        print(f'{name} = {value!r} refused: {error}')
        return True
    print(f'{name} = {value!r} taken, the field holds {config[name]!r}')
    return False


config = ConfigDict({'lr': 4e-4, 'steps': 100, 'model': {'slots': 7}})
assert refused(config, 'steps', 1e3) and refused(config, 'lr', 'abc')
assert not refused(config, 'lr', 1) and isinstance(config.lr, float)
assert not refused(config, 'steps', True) and config.steps is True
assert refused(config, 'steps', 100), 'an int is taken again'
assert not refused(config, 'lr', None) and not refused(config, 'lr', 'abc')

assert FrozenConfigDict(config) != config and config != FrozenConfigDict(config)
copied = ConfigDict(config)
copied.model.slots = 24
print('slots in the original after a change in the copy:', config.model.slots)
assert config.model.slots == 24
PY
