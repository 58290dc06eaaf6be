#!/usr/bin/env bash
# Two samples of a WebDataset whose keys have a dot become one.
#
# Versions: webdataset 1.0.2, numpy 2.4.6, pillow 13.0.0.
# Guess: what was written under two keys with one TarWriter is read as two samples.
# Seen: the reader takes the key only up to the first dot of the file's name. COCO_val2014.000001 and
#   COCO_val2014.000002 come back as ONE sample with key COCO_val2014 and fields 000001.cls, 000002.cls. Neither
#   writer nor reader says anything; dots in a folder's name do no harm.
# Why it matters: names of clips and crops often have dots (scene.0001, 12.5fps, v1.2). The length of an epoch shrinks
#   without a word wherever fields are not asked for by name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --disable-pip-version-check --quiet install numpy==2.4.6 pillow==13.0.0 webdataset==1.0.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import webdataset


def written(keys):
    with webdataset.TarWriter('shard.tar') as shard:
        for number, key in enumerate(keys):
            shard.write({'__key__': key, 'cls': number})
    samples = list(webdataset.WebDataset('shard.tar', shardshuffle=False).decode())
    samples = [{k: v for k, v in s.items() if not k.startswith('__') or k == '__key__'} for s in samples]
    print(keys, '->', samples)
    return samples


assert len(written(['val2014/000001', 'val2014/000002'])) == 2
assert len(written(['val.2014/000001', 'val.2014/000002'])) == 2
merged = written(['COCO_val2014.000001', 'COCO_val2014.000002'])
assert merged == [{'__key__': 'COCO_val2014', '000001.cls': 0, '000002.cls': 1}], merged
PY
