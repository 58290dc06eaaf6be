"""Let tools export the drawn truth: ``python -m tests.make_exports NAME`` writes data/exports/NAME_VERSION.json.

NAME is a function's below; its tool must be installed. The package and its tests need none of them.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

EXPORTS = Path(__file__).parent / 'data' / 'exports'
NAMES = ('cup', 'ring', 'pair', 'box', 'plate', 'dot')


def drawn() -> dict[str, tuple[np.ndarray, list[int]]]:
    """File name of every image -> its masks (O, 96, 128) bool, and which of ``NAMES`` each is of."""
    exact = json.loads((EXPORTS / 'exact.json').read_text())
    numbers = {image['file_name']: image['id'] for image in exact['images']}
    masks = {f'{name}.jpg': stack.astype(bool) for name, stack in np.load(EXPORTS / 'drawn.npz').items()}
    return {
        name: (masks[name], [a['category_id'] - 1 for a in exact['annotations'] if a['image_id'] == number])
        for name, number in numbers.items()
    }


def supervision(folder: Path) -> Path:
    """``DetectionDataset.as_coco``; objects of one row or column end the export of 0.25.1, and are left out."""
    import supervision as sv

    found = {}
    for name, (masks, classes) in drawn().items():
        Image.new('RGB', (128, 96)).save(folder / name)
        wide = np.array([min(mask.any(0).sum(), mask.any(1).sum()) > 1 for mask in masks], bool)
        masks, classes = masks[wide], np.array(classes, int)[wide]
        boxes = sv.mask_to_xyxy(masks) if len(masks) else np.zeros((0, 4))
        found[str(folder / name)] = sv.Detections(boxes, masks, class_id=classes)
    data = sv.DetectionDataset(list(NAMES), list(found), found)
    data.as_coco(annotations_path=str(folder / 'out.json'))
    return folder / 'out.json'


def labelformat(folder: Path) -> Path:
    """``COCOInstanceSegmentationOutput`` of binary masks."""
    from labelformat.formats.coco import COCOInstanceSegmentationOutput
    from labelformat.model.binary_mask_segmentation import BinaryMaskSegmentation
    from labelformat.model.bounding_box import BoundingBox
    from labelformat.model.category import Category
    from labelformat.model.image import Image as Image
    from labelformat.model.instance_segmentation import ImageInstanceSegmentation, SingleInstanceSegmentation

    class Drawn:
        def get_categories(self):
            return [Category(i, name) for i, name in enumerate(NAMES)]

        def get_images(self):
            return [Image(i, name, 128, 96) for i, name in enumerate(drawn())]

        def get_labels(self):
            categories = self.get_categories()
            for image, (masks, classes) in zip(self.get_images(), drawn().values(), strict=True):
                objects = []
                for mask, number in zip(masks, classes, strict=True):
                    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
                    box = BoundingBox(*map(int, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)))
                    code = BinaryMaskSegmentation.from_binary_mask(mask.astype(int), box)
                    objects.append(SingleInstanceSegmentation(categories[number], code))
                yield ImageInstanceSegmentation(image, objects)

    COCOInstanceSegmentationOutput(folder / 'out.json').save(Drawn())
    return folder / 'out.json'


def imantics(folder: Path) -> Path:
    """``Dataset.export(style='coco')`` of masks."""
    import imantics as im

    data = im.Dataset('drawn')
    categories = [im.Category(name, id=i) for i, name in enumerate(NAMES, 1)]
    for number, (name, (masks, classes)) in enumerate(drawn().items(), 1):
        Image.new('RGB', (128, 96)).save(folder / name)
        image = im.Image.from_path(str(folder / name))
        image.id = number
        for mask, category in zip(masks, classes, strict=True):
            image.add(im.Mask(mask.astype(np.uint8)), category=categories[category])
        data.add(image)
    (folder / 'out.json').write_text(json.dumps(data.coco()))
    return folder / 'out.json'


def kwcoco(folder: Path, polygons: bool = True) -> Path:
    """``CocoDataset.dump`` of kwimage's multipolygons in the new style: the original one refuses holes."""
    import kwcoco as kw
    import kwimage

    data = kw.CocoDataset()
    categories = [data.add_category(name) for name in NAMES]
    for name, (masks, classes) in drawn().items():
        image = data.add_image(file_name=name, width=128, height=96)
        for mask, number in zip(masks, classes, strict=True):
            shape = kwimage.Mask(mask.astype(np.uint8), 'c_mask')
            shape = shape.to_multi_polygon() if polygons else shape.to_array_rle()
            data.add_annotation(image, categories[number], segmentation=shape.to_coco(style='new'))
    data.dump(str(folder / 'out.json'))
    return folder / 'out.json'


def kwcoco_masks(folder: Path) -> Path:
    """The same of run-length codes."""
    return kwcoco(folder, False)


if __name__ == '__main__':
    for tool in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as place:
            content = json.loads(globals()[tool](Path(place)).read_text())
        for image in content['images']:
            image['file_name'] = Path(image['file_name']).name  # some write whole paths, others names
        target = EXPORTS / f'{tool}_{importlib.metadata.version(tool.split("_")[0])}.json'
        target.write_text(json.dumps(content))
        print(target.name, len(content['annotations']))
