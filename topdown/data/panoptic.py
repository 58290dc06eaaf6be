"""COCO's panoptic segments, things and stuff that share out an image's pixels: a JSON file and a map an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topdown.data.base import Annotation, check_masks, opened
from topdown.data.records import inside, whole
from topdown.files import brief, read_json

HELP = (
    'unpack panoptic_annotations_trainval2017.zip, of http://images.cocodataset.org/annotations/, into data_root, and '
    'annotations/panoptic_val2017.zip, which it holds, into annotations/'
)


class Panoptic:
    """Things as objects; stuff is background, and pixels of no segment are void.

    A map's pixel is R + 256 G + 65536 B, the id of its segment, or 0 for none.

    Args:
        file: panoptic_val2017.json; maps lie beside it in a folder of that name.

    Raises:
        FileNotFoundError: if it is missing, saying how to get it.
        ValueError: if it is not a file of panoptic segments.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise FileNotFoundError(f'{file} is missing, from which this protocol takes the truth of COCO: {HELP}')
        self.file, content = file, read_json(file, HELP)
        try:
            self.things = {whole(row, 'id') for row in content['categories'] if row['isthing']}
            self.maps = {}
            for row in content['annotations']:
                segments = {whole(s, 'id'): whole(s, 'category_id') for s in row['segments_info']}
                self.maps[whole(row, 'image_id')] = (inside(row['file_name']), segments)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{file} is not a file of panoptic segments ({brief(repr(error))}): {HELP}') from error

    def annotation(self, image: int | str, size: tuple[int, int]) -> Annotation:
        """The truth of an image of that id, height and width.

        Raises:
            FileNotFoundError, ValueError: if its map is missing, of another size, or has segments that are not listed.
        """
        name, categories = self.maps.get(image, (f'the map of image {image!r}', {}))
        path = self.file.with_suffix('') / name
        with opened(path, HELP) as found:
            labels = np.array(found.convert('RGB')).astype(np.int32) @ (1, 256, 65_536)
        present = np.unique(labels[labels > 0]).tolist()
        if labels.shape != size or not set(present) <= set(categories):
            raise ValueError(f'{path} does not fit its image, {size[0]} x {size[1]} pixels, or its segments: {HELP}')
        things = [segment for segment in present if categories[segment] in self.things]
        check_masks(path, len(things), labels.size)
        masks, classes = labels == np.array(things, int)[:, None, None], [categories[thing] for thing in things]
        return Annotation(masks, np.array(classes, np.int64), np.zeros(len(things), bool), labels == 0)
