"""Readers of label PNGs, on files in the genuine formats: palettes with void borders, gray values of 8 and 16 bits."""

import numpy as np
import pytest
from PIL import Image

import topdown
from topdown import preset
from topdown.cli import main
from topdown.data.base import read_labels, voc_colours
from topdown.data.labels import Ade20k, Cityscapes, LabelFolder, VocSegmentation
from topdown.evaluate import metrics
from topdown.evaluate.truth import make_truth_set

RNG = np.random.default_rng(0)


def image(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(path)


def palette_png(path, labels):
    """As VOC's are: 8-bit indices into a palette in which index 255 is whitish."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8), mode='P')
    colours = np.stack([(np.arange(256) * f) % 256 for f in (37, 91, 151)], 1)
    image.putpalette(colours.astype(np.uint8).tobytes())
    image.save(path)
    assert Image.open(path).mode == 'P'


@pytest.fixture
def voc_root(tmp_path):
    """Two validation images, three training images in VOC's list, and the lists of the boundaries data set."""
    base = tmp_path / 'VOCdevkit' / 'VOC2012'
    lists = base / 'ImageSets' / 'Segmentation'
    lists.mkdir(parents=True)
    (lists / 'val.txt').write_text('2007_000033\n2007_000042\n')
    (lists / 'train.txt').write_text('2007_000032\n2007_000039\n2008_000001\n')
    boundaries = tmp_path / 'benchmark_RELEASE' / 'dataset'
    boundaries.mkdir(parents=True)
    (boundaries / 'train.txt').write_text('2008_000001\n2008_000002\n2007_000033\n')  # one is in VOC's validation
    (boundaries / 'val.txt').write_text('2008_000003\n')
    for name in ('2007_000033', '2007_000042', '2007_000032', '2007_000039', '2008_000001', '2008_000002'):
        image(base / 'JPEGImages' / f'{name}.jpg', 50, 70)
    instances, classes = np.zeros((50, 70), int), np.zeros((50, 70), int)
    instances[5:20, 5:25], classes[5:20, 5:25] = 1, 15
    instances[5:30, 40:60], classes[5:30, 40:60] = 2, 1
    instances[19:21, 5:25], classes[19:21, 5:25] = 255, 255
    for name in ('2007_000033', '2007_000042'):
        palette_png(base / 'SegmentationObject' / f'{name}.png', instances)
        palette_png(base / 'SegmentationClass' / f'{name}.png', classes)
    return tmp_path


def test_voc_reads_instances_classes_and_void(voc_root):
    data = VocSegmentation(voc_root, 'val', 32, 50)
    assert len(data) == 2
    truth = data.annotation(0)
    assert truth.masks.sum((1, 2)).tolist() == [14 * 20, 25 * 20]
    assert truth.categories.tolist() == [15, 1]
    assert [data.category_names[c] for c in truth.categories] == ['person', 'aeroplane']
    assert truth.void.sum() == 2 * 20
    assert not truth.crowd.any()
    cut = truth.cut(50)
    assert (data.view(0).shape, cut.masks.shape, cut.void.shape) == ((3, 32, 32), (2, 50, 50), (50, 50))
    np.testing.assert_array_equal(cut.void, truth.void[:, 10:60])  # the short side already fits: a centre crop


def test_voc_training_list_comes_from_the_data(voc_root):
    data = VocSegmentation(voc_root, 'train', 32, 50)
    assert data.ids == ['2007_000032', '2007_000039', '2008_000001', '2008_000002', '2008_000003']
    assert data.view(0).shape == (3, 32, 32)
    lists = voc_root / 'VOCdevkit' / 'VOC2012' / 'ImageSets' / 'Segmentation'
    (lists / 'trainaug.txt').write_text('2008_000002\n2007_000042\n')
    assert VocSegmentation(voc_root, 'train', 32, 50).ids == ['2008_000002']  # never a validation image


def test_void_is_background_or_ignored(voc_root):
    data = VocSegmentation(voc_root, 'val', 32, 50)
    config = preset('voc', data_root=str(voc_root), mask_size=50)
    background, ignored = (make_truth_set(config.with_(void=how)).instances[:] for how in ('background', 'ignore'))
    void = data.annotation(0).cut(50).void
    assert (background[0][void] == 0).all()
    assert (ignored[0][void] == metrics.IGNORE).all()
    np.testing.assert_array_equal(background[0][~void], ignored[0][~void])


def make_ade20k(root, part, count=1):
    """Images of three regions: classes 3 and 150, and what is unlabelled."""
    base = root / 'ADEChallengeData2016'
    labels = np.zeros((40, 60), np.uint8)
    labels[:20], labels[20:, :30] = 3, 150
    (base / 'annotations' / part).mkdir(parents=True)
    for number in range(1, count + 1):
        name = f'ADE_{"val" if part == "validation" else "train"}_{number:08d}'
        image(base / 'images' / part / f'{name}.jpg', 40, 60)
        Image.fromarray(labels).save(base / 'annotations' / part / f'{name}.png')
    (base / 'objectInfo150.txt').write_text(
        'Idx\tRatio\tTrain\tVal\tStuff\tName\n3\t0.1\t5\t4\t1\tsky\n150\t0\t1\t1\t0\tflag\n'
    )


def test_ade20k_classes_are_objects_and_zero_is_void(tmp_path):
    make_ade20k(tmp_path, 'validation')
    data = Ade20k(tmp_path, 'val', 32, 32)
    truth = data.annotation(0)
    assert data.ids == ['ADE_val_00000001']
    assert truth.categories.tolist() == [3, 150]
    assert truth.masks.sum((1, 2)).tolist() == [1200, 600]
    assert truth.void.sum() == 600
    assert data.category_names[3] == 'sky'
    with pytest.raises(FileNotFoundError, match=r'images/training is missing.*ADEChallengeData2016.zip'):
        Ade20k(tmp_path, 'train', 32, 32)


def make_cityscapes(root, part, city, count=1):
    """Images of two cars, a person and a group of persons on a road, with rows out of the region of interest."""
    labels = np.full((32, 64), 7, np.uint16)  # road
    labels[:2] = 3  # out of the region of interest
    labels[22:27, 20:30] = 26_001
    labels[5:10, 20:40] = 26_002
    labels[15:20, :10] = 24_000
    labels[15:20, 30:60] = 24  # a group of persons
    folder = root / 'gtFine' / part / city
    folder.mkdir(parents=True)
    for number in range(count):
        name = f'{city}_{number:06d}_000294'
        image(root / 'leftImg8bit' / part / city / f'{name}_leftImg8bit.png', 32, 64)
        Image.fromarray(labels).save(folder / f'{name}_gtFine_instanceIds.png')


def test_cityscapes_things_groups_and_stuff(tmp_path):
    make_cityscapes(tmp_path, 'val', 'frankfurt')
    data = Cityscapes(tmp_path, 'val', 32, 32)
    truth = data.annotation(0)
    found = sorted(zip(truth.categories.tolist(), truth.crowd.tolist(), truth.masks.sum((1, 2)).tolist()))
    assert found == [(24, False, 50), (24, True, 150), (26, False, 50), (26, False, 100)]
    assert truth.void.sum() == 128
    with pytest.raises(FileNotFoundError, match='Log in at'):
        Cityscapes(tmp_path, 'train', 32, 32)


TINY_MODEL = {
    'encoder': 'vit_toybox_patch8_96', 'image_size': 96, 'layer': 5, 'final_norm': True, 'slot_size': 16,
    'codebook_size': 8, 'dead_code_threshold': 0.1, 'decoder_layers': 1, 'decoder_heads': 2, 'steps': 3,
    'batch_size': 2, 'warmup_steps': 1, 'num_workers': 0, 'eval_every': 0, 'checkpoint_every': 0, 'log_every': 1,
}  # fmt: skip


@pytest.mark.parametrize('name', ['ade20k', 'cityscapes'])
def test_presets_of_scenes_train_and_are_evaluated(name, tmp_path, encoder, capsys):
    """All settings of the presets but those of size, from official layouts to scores under several protocols."""
    make, parts = {
        'ade20k': (make_ade20k, (('training',), ('validation',))),
        'cityscapes': (make_cityscapes, (('train', 'aachen'), ('val', 'frankfurt'))),
    }[name]
    for part in parts:
        make(tmp_path, *part, count=3)
    config = preset(name, data_root=str(tmp_path), **TINY_MODEL)
    assert (config.data.dataset, config.model.num_slots) == (name, 11)
    run = topdown.train_model(config, tmp_path / 'run', encoder, progress=False)
    scores = run.evaluations[['fg_ari', 'mbo_i', 'mbo_c', 'miou']].iloc[-1]
    assert np.isfinite(scores.to_numpy(float)).all()
    # regions of classes are not instances: there is one of a class, and both means are over the same regions
    assert (scores.mbo_i == pytest.approx(scores.mbo_c)) == (name == 'ade20k')
    capsys.readouterr()
    main(['evaluate', str(tmp_path / 'run' / 'checkpoint.safetensors'), '--protocols', 'oclf', 'spot', 'bench'])
    said = capsys.readouterr().out
    assert said.startswith(f'{name}, 3 images')
    assert 'spot: as ' in said


def test_any_folder_of_label_pngs(tmp_path):
    for split in ('train', 'val'):
        image(tmp_path / split / 'images' / 'a.png', 20, 30)
        (tmp_path / split / 'labels').mkdir()
        labels = np.zeros((20, 30), np.uint8)
        labels[:5], labels[10:, 20:], labels[7] = 9, 200, 255
        Image.fromarray(labels).save(tmp_path / split / 'labels' / 'a.png')
    assert LabelFolder(tmp_path, 'val', 16, 16).annotation(0).masks.shape[0] == 3
    truth = LabelFolder(tmp_path, 'val', 16, 16, void=255).annotation(0)
    assert truth.masks.sum((1, 2)).tolist() == [150, 100]
    assert truth.void.sum() == 30


def test_labels_that_are_colours_or_of_another_size_are_refused(tmp_path):
    image(tmp_path / 'val' / 'images' / 'a.jpg', 20, 30)
    image(tmp_path / 'val' / 'labels' / 'a.png', 20, 30)
    data = LabelFolder(tmp_path, 'val', 16, 16)
    with pytest.raises(ValueError, match='holds colours'):
        data.annotation(0)
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / 'val' / 'labels' / 'a.png')
    with pytest.raises(ValueError, match='do not belong together'):
        data.annotation(0)
    (tmp_path / 'val' / 'labels' / 'a.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'a.png is missing'):
        data.annotation(0)


@pytest.mark.parametrize('dataset', ['coco', 'voc', 'ade20k', 'cityscapes', 'folder', 'movi_c', 'movi_e'])
def test_missing_data_says_how_to_get_it(dataset, tmp_path):
    config = topdown.preset('toybox', dataset=dataset)
    with pytest.raises(FileNotFoundError, match='data_root'):
        topdown.open_dataset(config, 'val')
    with pytest.raises(FileNotFoundError, match=r'(is missing|not a folder)\b.*(Download|Log in|must hold|gsutil)'):
        topdown.open_dataset(config.with_(data_root=str(tmp_path / 'nothing')), 'val')


def test_voc_trains_and_is_evaluated(voc_root, encoder):
    (voc_root / 'VOCdevkit' / 'VOC2012' / 'JPEGImages' / '2008_000003.jpg').write_bytes(
        (voc_root / 'VOCdevkit' / 'VOC2012' / 'JPEGImages' / '2008_000002.jpg').read_bytes()
    )
    config = topdown.preset(
        'smoke', dataset='voc', data_root=str(voc_root), steps=2, batch_size=2, cache_tokens=False, eval_images=0,
        eval_every=0, random_crop=True, void='ignore',
    )  # fmt: skip
    run = topdown.train_model(config, voc_root / 'run', encoder, progress=False)
    assert np.isfinite(run.evaluations[['fg_ari', 'mbo_i', 'mbo_c', 'miou']].to_numpy()).all()


def test_lists_do_not_lead_out_of_the_folder(voc_root):
    (path,) = voc_root.rglob('ImageSets/Segmentation/val.txt')
    for name in ('../../secret', '/etc/secret', 'a\0b'):
        path.write_text(f'{path.read_text()}{name}\n')
        with pytest.raises(ValueError, match=r'val.txt: file_name'):
            VocSegmentation(voc_root, 'val', 32, 32)
        path.write_text(path.read_text().replace(f'{name}\n', ''))


@pytest.mark.parametrize('kind', ['gray', 'voc', 'own', 'black'])
def test_renumbered_palettes_give_the_labels_they_were_made_from(tmp_path, kind):
    """What programs that make PNGs smaller do: colours stay, indices become 0, 1, 2, ..."""
    labels = np.repeat(np.array([0, 3, 5, 255], np.uint8), 4).reshape(4, 4)
    palette = {
        'gray': [(n, n, n) for n in range(256)], 'voc': voc_colours(), 'own': [(9, n, 7) for n in range(256)],
        'black': [(0, 0, 0)] * 256,
    }[kind]  # fmt: skip
    whole = Image.frombytes('P', (4, 4), labels.tobytes())
    whole.putpalette([value for colour in palette for value in colour])
    whole.save(tmp_path / 'whole.png')
    np.testing.assert_array_equal(read_labels(tmp_path / 'whole.png'), labels)
    used, indices = np.unique(labels, return_inverse=True)
    small = Image.frombytes('P', (4, 4), indices.astype(np.uint8).tobytes())
    small.putpalette([value for label in used for value in palette[label]])
    small.save(tmp_path / 'small.png')
    expected = labels if kind in ('gray', 'voc') else indices.reshape(4, 4)  # other palettes do not tell
    np.testing.assert_array_equal(read_labels(tmp_path / 'small.png'), expected)


def test_colours_of_voc_are_the_published_ones():
    colours = voc_colours()
    assert colours[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert colours[20] == (0, 64, 128)  # tv monitor
    assert colours[255] == (224, 224, 192)  # the border
    assert len(set(colours)) == 256
