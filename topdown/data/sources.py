"""Where data sets come from: addresses, sizes, checksums, licences. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
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


SOURCES = {
    'coco': Source(
        'COCO 2017',
        'annotations: CC BY 4.0; pictures: terms of Flickr, each with a licence of its own',
        (
            Archive(
                'http://images.cocodataset.org/zips/train2017.zip', 'train2017', 'cced6f7f71b7629ddf16f17bbcfab6b2'
            ),
            Archive('http://images.cocodataset.org/zips/val2017.zip', 'val2017', '442b8da7639aecaf257c1dceb8ba8c80'),
            Archive(
                'http://images.cocodataset.org/annotations/annotations_trainval2017.zip',
                'annotations/instances_val2017.json',
                'f4bbac642086de4f52a3fdda2de5fa2c',
            ),
        ),
    ),
    'voc': Source(
        'PASCAL VOC 2012 with the Semantic Boundaries Dataset',
        'pictures: terms of Flickr; for research',
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
    'ade20k': Source(
        'ADE20K scene parsing',
        'pictures: for research and education; annotations: BSD 3-clause',
        (
            Archive(
                'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
                'ADEChallengeData2016/objectInfo150.txt',
                '7328b3957e407ddae1d3cbf487f149ef',
            ),
        ),
    ),
    'cityscapes': Source(
        'Cityscapes, fine annotations',
        'for research; see its terms of use',
        login='Log in at https://www.cityscapes-dataset.com/ (registration is free for research), download '
        'leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, and unpack both into one folder.',
    ),
    **{
        name: Source(
            f'MOVi-{name[-1].upper()} (Kubric), 128 x 128, training and validation',
            'Apache-2.0',
            bucket=Bucket('kubric-public', f'tfds/{name}/128x128/1.0.0/', f'{name}/128x128/1.0.0', ('-test.',)),
        )
        for name in ('movi_c', 'movi_d', 'movi_e')
    },
    'clevr6': Source(
        'CLEVR with masks (multi-object datasets)',
        'CC BY 4.0',
        bucket=Bucket('multi-object-datasets', 'clevr_with_masks/clevr_with_masks_train.tfrecords'),
    ),
}
