#!/usr/bin/env bash
# pooch checks the archive, not what was unpacked from it, and hands out files that were never in it.
#
# Versions: pooch 1.9.0.
# Guess: with a known hash, the Unzip processor gives the archive's members, intact: one that was cut off or changed
#   since is unpacked again.
# Seen: members are looked for by name only: a changed member stays changed, an emptied one empty; only a missing one
#   is unpacked again (then all are). The returned list is the folder's content: a file that somebody put there is in
#   it.
# Why it matters: data sets that are loaded through pooch pass their hash while the images that are read are not those
#   of the archive, and a stray file (a cache, a hidden copy) becomes an image of the set.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install pooch==1.9.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import zipfile
from pathlib import Path

import pooch

pooch.get_logger().disabled = True
with zipfile.ZipFile('masks.zip', 'w') as archive:
    archive.writestr('a.txt', 'the mask of a')
    archive.writestr('b.txt', 'the mask of b')


def unpacked():
    """As pooch calls it when the archive is there and its hash is right."""
    return {Path(name).name: Path(name).read_text() for name in sorted(pooch.Unzip()('masks.zip', 'fetch', None))}


assert unpacked() == {'a.txt': 'the mask of a', 'b.txt': 'the mask of b'}
folder = Path('masks.zip.unzip')
(folder / 'a.txt').write_text('the ma')
(folder / 'b.txt').write_text('')
(folder / 'Thumbs.db').write_text('stray')
found = unpacked()
print('after damage:', found)
assert found == {'a.txt': 'the ma', 'b.txt': '', 'Thumbs.db': 'stray'}, found
(folder / 'b.txt').unlink()
found = unpacked()
print('after one was deleted:', found)
assert found == {'a.txt': 'the mask of a', 'b.txt': 'the mask of b', 'Thumbs.db': 'stray'}, found
PY
