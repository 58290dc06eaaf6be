"""Every data set that can be read, once: its reader, how it is got and how many images it has. Standard library only.

A data set added to ``DATASETS`` is known to the configuration, the command line, ``check`` and ``card``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """One file to download and unpack."""

    url: str
    gives: str
    """A path below the root that exists once the archive is unpacked."""
    md5: str = ''
    """Published checksum; empty if there is none."""
    into: str = ''
    """Folder below the root to unpack into."""

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rsplit('/', 1)[-1]


@dataclass(frozen=True)
class Bucket:
    """Files of a public bucket of Google Cloud Storage, taken as they are."""

    name: str
    prefix: str
    """Objects whose names begin so."""
    into: str = ''
    """Folder below the root that takes them, under the last part of their names."""
    leave: tuple[str, ...] = ()
    """Objects whose names contain one of these are not wanted."""
    base: str = 'https://storage.googleapis.com'
    """Address of the service."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a bucket, as its listing describes it."""

    url: str
    target: Path
    size: int
    md5: str = ''
    crc32c: str = ''
    """Both hexadecimal; the service has no MD5 of some files, and then the other."""


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, and under what terms."""

    title: str
    licence: str
    archives: tuple[Archive, ...] = ()
    bucket: Bucket | None = None
    login: str = ''
    """How to get it by hand, if it is behind a login."""

    @property
    def elsewhere(self) -> bool:
        """Whether it has to be got; else it is made here, or yours."""
        return bool(self.archives or self.bucket or self.login)


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is read. Functions and classes are named as 'module:name'."""

    source: Source
    reader: str
    """Class of its splits, a ``ImageSet``, called with root, split, image_size, mask_size, limit and protocol."""
    help: str = ''
    """How to get it, and what ``data_root`` must hold."""
    official: dict[str, int] = field(default_factory=dict)
    """Images of a split, as its makers count them; of MOVi all frames."""
    unused_masks: tuple[str, ...] = ()
    """Splits whose masks are not used, and not asked for."""
    settings: tuple[str, ...] = ()
    """Settings that the reader takes besides (see ``data.open_dataset``)."""
    fixed: dict[str, str] = field(default_factory=dict)
    """Other arguments of the reader."""
    make: str = ''
    """Function that makes it on first use, of those that are made."""
    prepare: str = ''
    """Function that converts it once, of those that cannot be read as they are."""


_LOGIN = (
    'Log in at https://www.cityscapes-dataset.com/ (registration is free for research), download '
    'leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into one folder'
)


def _movi(name: str) -> DataSet:
    return DataSet(
        Source(
            f'MOVi-{name[-1].upper()} (Kubric), 128 x 128, training and validation',
            'Apache-2.0',
            bucket=Bucket('kubric-public', f'tfds/{name}/128x128/1.0.0/', f'{name}/128x128/1.0.0', ('-test.',)),
        ),
        'topdown.data.movi:Movi',
        f'Get it with topdown data fetch {name} DIR, or with gsutil -m cp -r gs://kubric-public/tfds/{name}/128x128 '
        f'DIR/{name}/ , so that data_root holds {name}-train.tfrecord-* and {name}-validation.tfrecord-* in '
        f'{name}/128x128/1.0.0/.',
        official={'val': 250 * 24},
        fixed={'name': name},
    )


DATASETS = {
    'toybox': DataSet(
        Source('Toybox', 'Apache-2.0'), 'topdown.data.coco:CocoInstances', make='topdown.toybox.make:make_toybox'
    ),
    'toybox_wide': DataSet(
        Source("Toybox in the manner of VOC's images", 'Apache-2.0'),
        'topdown.data.standins:WideImages',
        make='topdown.toybox.make:make_toybox',
    ),
    'toybox_clips': DataSet(
        Source('Clips of Toybox in the format of MOVi', 'Apache-2.0'),
        'topdown.data.movi:Movi',
        fixed={'name': 'toybox_clips'},
        make='topdown.data.standins:make_clips',
    ),
    'toybox_dial': DataSet(
        Source('Toybox as tokens that tell the category, the better the larger evidence is', 'Apache-2.0'),
        'topdown.data.dial:DialTokens',
        settings=('evidence', 'feature_size'),
        make='topdown.toybox.make:make_toybox',
    ),
    'coco': DataSet(
        Source(
            'COCO 2017',
            'annotations: CC BY 4.0; images: terms of Flickr, each with a licence of its own',
            (
                Archive(
                    'http://images.cocodataset.org/zips/train2017.zip', 'train2017', 'cced6f7f71b7629ddf16f17bbcfab6b2'
                ),
                Archive(
                    'http://images.cocodataset.org/zips/val2017.zip', 'val2017', '442b8da7639aecaf257c1dceb8ba8c80'
                ),
                Archive(
                    'http://images.cocodataset.org/annotations/annotations_trainval2017.zip',
                    'annotations/instances_val2017.json',
                    'f4bbac642086de4f52a3fdda2de5fa2c',
                ),
            ),
        ),
        'topdown.data.coco:CocoInstances',
        'Download train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download '
        'and unpack them into one folder, so that it holds train2017/, val2017/ and annotations/; '
        'then pass that folder as data_root.',
        official={'train': 118_287, 'val': 5_000},
        settings=('strict', 'annotations', 'images'),
    ),
    'voc': DataSet(
        Source(
            'PASCAL VOC 2012 with the Semantic Boundaries Dataset',
            'images: terms of Flickr; for research',
            (
                Archive(
                    'http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar',
                    'VOCdevkit/VOC2012/JPEGImages',
                    '6cd6e144f989b92b3379bac3b3de84fd',
                ),
                Archive(
                    'https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz',
                    'benchmark_RELEASE/dataset/train.txt',
                    '82b4d87ceb2ed10f6038a1cba92111cb',
                ),
            ),
        ),
        'topdown.data.labels:VocSegmentation',
        'Download VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ and unpack it, so '
        'that data_root holds VOCdevkit/VOC2012/. For training, also unpack the Semantic Boundaries Dataset, '
        'benchmark.tgz from http://home.bharathh.info/pubs/codes/SBD/download.html, so that data_root holds '
        'benchmark_RELEASE/dataset/.',
        official={'train': 10_582, 'val': 1_449},
        unused_masks=('train',),
    ),
    'ade20k': DataSet(
        Source(
            'ADE20K scene parsing',
            'images: for research and education; annotations: BSD 3-clause',
            (
                Archive(
                    'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
                    'ADEChallengeData2016/objectInfo150.txt',
                    '7328b3957e407ddae1d3cbf487f149ef',
                ),
            ),
        ),
        'topdown.data.labels:Ade20k',
        'Download ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu/ and unpack it, so that data_root '
        'holds ADEChallengeData2016/ with images/ and annotations/.',
        official={'train': 20_210, 'val': 2_000},
    ),
    'cityscapes': DataSet(
        Source('Cityscapes, fine annotations', 'for research; see its terms of use', login=f'{_LOGIN}.'),
        'topdown.data.labels:Cityscapes',
        f'{_LOGIN}, so that it holds leftImg8bit/ and gtFine/; then pass that folder as data_root.',
        official={'train': 2_975, 'val': 500},
    ),
    **{name: _movi(name) for name in ('movi_c', 'movi_d', 'movi_e')},
    'clevr6': DataSet(
        Source(
            'CLEVR with masks (multi-object datasets)',
            'CC BY 4.0',
            bucket=Bucket('multi-object-datasets', 'clevr_with_masks/clevr_with_masks_train.tfrecords'),
        ),
        'topdown.data.clevr:Clevr6',
        'Get clevr_with_masks_train.tfrecords with topdown data fetch clevr6 DIR, or from '
        'https://storage.googleapis.com/multi-object-datasets/clevr_with_masks/clevr_with_masks_train.tfrecords , into '
        'one folder; then topdown data prepare clevr6 DIR, and pass that folder as data_root.',
        prepare='topdown.data.clevr:prepare_clevr',
    ),
    'folder': DataSet(
        Source('any images with label PNGs', 'yours'),
        'topdown.data.labels:LabelFolder',
        'data_root must hold train/ and val/, each with images/ and labels/: for every image a PNG of the same name, '
        'in the same subfolder if there are any, with a label in every pixel, 0 for background.',
        settings=('void',),
    ),
    'images': DataSet(
        Source('any images, without labels', 'yours'),
        'topdown.data.own:UnlabelledImages',
        'data_root must hold two images or more (jpg, jpeg, png, bmp or webp), in any folders below it; if it holds '
        'train/ and val/, these are the splits.',
        unused_masks=('train', 'val'),
    ),
    'tokens': DataSet(
        Source('tokens that any encoder made', 'yours'),
        'topdown.data.own:TokenFolder',
        'data_root must hold train/ and val/, each with tokens/: for every image a .npy file of floating numbers '
        '(N, D), row by row, or (R, R, D); and, to be scored, labels/ as of dataset folder.',
        settings=('void', 'feature_size'),
    ),
}
"""Name -> what is known of it."""
