#!/usr/bin/env bash
# Masks of an image without objects are not resized with it.
#
# Versions: albumentationsx 2.5.1, opencv-python-headless 5.0.0.93, numpy 2.4.6, torch 2.14.1 (it cannot be imported
#   without).
# Guess: masks (objects, height, width) come back at the image's new size, also if there are none; boolean masks can
#   be resized and rotated.
# Seen: an empty stack keeps its OLD height and width, (0, 16, 16) beside an image of 9 x 9. A list of masks raises
#   AttributeError. Boolean masks can be resized and flipped, but rotating them ends in OpenCV's assertion. int64
#   labels are accepted and come back as int32 from Rotate, as int64 from HorizontalFlip.
# Why it matters: one in a hundred images of COCO's validation set has no object. The batch that holds one fails to
#   stack, or an image of no objects is compared at another size, long after the transform was tried out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 opencv-python-headless==5.0.0.93 \
    albumentationsx==2.5.1 torch==2.14.1
export NO_ALBUMENTATIONS_UPDATE=1
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import albumentations
import numpy as np

image = np.zeros((16, 16, 3), np.uint8)
masks = np.zeros((2, 16, 16), np.uint8)
masks[0, 2:8, 2:9], masks[1, 9:14, 9:14] = 1, 1
resize = albumentations.Compose([albumentations.Resize(9, 9)])
rotate = albumentations.Compose([albumentations.Rotate((30, 30), p=1)])
flip = albumentations.Compose([albumentations.HorizontalFlip(p=1)])


def error_of(transform, masks):
    try:
        return f'no error, {transform(image=image, masks=masks)["masks"].dtype}'
    except Exception as error:
        return type(error).__name__


two, none = resize(image=image, masks=masks), resize(image=image, masks=masks[:0])
print('two objects', two['image'].shape, two['masks'].shape, '; none', none['image'].shape, none['masks'].shape)
assert two['masks'].shape == (2, 9, 9) and none['image'].shape == (9, 9, 3)
assert none['masks'].shape == (0, 16, 16), none['masks'].shape
found = {
    'a list': error_of(resize, list(masks)),
    'bool, resized': error_of(resize, masks.astype(bool)),
    'bool, rotated': error_of(rotate, masks.astype(bool)),
    'int64, rotated': error_of(rotate, masks.astype(np.int64)),
    'int64, flipped': error_of(flip, masks.astype(np.int64)),
}
print(found)
assert found == {
    'a list': 'AttributeError', 'bool, resized': 'no error, bool', 'bool, rotated': 'error',
    'int64, rotated': 'no error, int32', 'int64, flipped': 'no error, int64',
}, found
PY
