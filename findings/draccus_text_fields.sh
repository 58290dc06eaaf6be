#!/usr/bin/env bash
# Text given to a text field of a draccus configuration arrives as other text.
#
# Versions: draccus 0.11.6.
# Guess: a field declared as str takes what follows its option on the command line, letter by letter.
# Seen: the text is read as YAML 1.1 first and what comes out is made text again: yes becomes 'True', 007 becomes '7',
#   1:30 becomes '90' (base sixty), 'a: b' becomes a printed dictionary; null and #1 give None in a field that cannot
#   be None. A field of whole numbers takes 010 as 8 and true as 1, and refuses 1e3 and 1000.0. 4e-4 is right for a
#   float, unlike in plain YAML.
# Why it matters: names of runs, of clips (007) and of classes (no, on, null) are such texts; the run goes on with a
#   name or filter that nobody gave.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install draccus==0.11.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
from dataclasses import dataclass

import draccus


@dataclass
class Config:
    text: str = ''
    steps: int = 0
    lr: float = 0.0


def given(option, value):
    found = getattr(draccus.parse(Config, args=[f'--{option}', value]), option)
    print(f'--{option} {value!r} -> {found!r}')
    return found


expected = {'yes': 'True', '007': '7', '1:30': '90', 'a: b': "{'a': 'b'}", 'null': None, '#1': None, 'None': 'None',
            '1e3': '1e3', '20261127': '20261127'}
for value, found in expected.items():
    assert given('text', value) == found
assert given('steps', '010') == 8 and given('steps', 'true') == 1 and given('lr', '4e-4') == 4e-4
for value in ('1e3', '1000.0'):
    try:
        given('steps', value)
    except Exception as error:
        print(f'--steps {value!r} refused: {type(error).__name__}')
        assert type(error).__name__ == 'DecodingError'
    else:
        raise AssertionError(f'{value} is taken now')
PY
