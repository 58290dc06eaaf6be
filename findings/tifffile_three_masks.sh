#!/usr/bin/env bash
# A stack of three or four masks becomes one colour image; of two or five it stays a stack.
#
# Versions: tifffile 2026.3.3, Pillow 13.0.0, numpy 2.4.6.
# Guess: tifffile.imwrite stores an array (objects, height, width) as one page an object.
# Seen: two or five objects are pages. Three or four are the planes of ONE page, RGB or RGB with alpha (with a
#   DeprecationWarning that an image library's user may never see); uint16 the same. tifffile reads its own file
#   rightly; Pillow gives (height, width, 3), so that the number of objects of an image decides in which layout its
#   masks are read. photometric='minisblack' makes pages of all of them.
# Why it matters: tools of microscopy store the masks of an image like this. Code that was tried on an image with two
#   objects meets a colour image at the first one with three.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 tifffile==2026.3.3
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import tifffile
from PIL import Image


def stored(objects, dtype, **options):
    masks = np.zeros((objects, 8, 9), dtype)
    for o in range(objects):
        masks[o, o : o + 2] = 1
    tifffile.imwrite('masks.tif', masks, **options)
    assert (tifffile.imread('masks.tif') == masks).all()
    with Image.open('masks.tif') as image:
        return image.n_frames, np.array(image).shape


for dtype in (np.uint8, np.uint16):
    found = {objects: stored(objects, dtype) for objects in (2, 3, 4, 5)}
    print(np.dtype(dtype), 'objects: (pages, shape of a page as Pillow reads it)', found)
    assert found == {2: (2, (8, 9)), 3: (1, (8, 9, 3)), 4: (1, (8, 9, 4)), 5: (5, (8, 9))}, found
    for objects in (2, 3, 4, 5):
        assert stored(objects, dtype, photometric='minisblack') == (objects, (8, 9))
PY
