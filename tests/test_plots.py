"""Figures: that they show what they are given."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from topdown.book import plots

mpl.use('Agg')


def test_overlay_paints_segments_and_leaves_the_clear_label():
    image = np.full((8, 8, 3), 0.5)
    labels = np.zeros((16, 16), int)
    labels[:, 8:] = 1
    out = plots.overlay(image, labels, strength=1.0, clear=0)
    np.testing.assert_allclose(out[3, 3], 0.5)
    np.testing.assert_allclose(out[3, 12], plots.COLOURS[1])
    np.testing.assert_allclose(out[3, 8], 1.0)  # the edge


def test_crop_to_mask_shows_the_masked_square():
    image = np.zeros((16, 16, 3))
    image[4:8, 4:8] = (0.0, 1.0, 0.0)
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:16] = True
    crop = plots.crop_to_mask(image, mask, size=20)
    assert crop.shape == (20, 20, 3)
    np.testing.assert_allclose(crop[10, 10], (0.0, 1.0, 0.0))
    assert crop[0, 0].min() > 0.7  # faded
    assert plots.crop_to_mask(image, np.zeros((32, 32), bool)).min() == 1.0


def test_slots_are_drawn_and_faded_where_they_are_transparent():
    rng = np.random.default_rng(0)
    images, drawn, masks = rng.random((2, 4, 4, 3)), rng.random((2, 3, 4, 4, 3)), np.zeros((2, 3, 4, 4))
    masks[:, 0] = 1.0
    figure = plots.show_slot_images(images, images, drawn, masks)
    assert len(figure.axes) == 2 * 5
    np.testing.assert_allclose(figure.axes[2].images[0].get_array(), drawn[0, 0])
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), 1.0)
    plt.close(figure)


def test_figures_have_a_panel_for_everything(tmp_path):
    rng = np.random.default_rng(0)
    plots.style()
    images = rng.random((2, 8, 8, 3))
    figure = plots.show_masks(
        images, {'truth': rng.integers(0, 3, (2, 16, 16)), 'model': rng.integers(0, 3, (2, 16, 16))}
    )
    assert len(figure.axes) == 6
    figure = plots.show_attention(images[0], {'first': rng.random((4, 9)), 'second': rng.random((4, 9))}, (3, 3))
    assert len(figure.axes) == 10
    assert [a.get_title() for a in figure.axes[1:5]] == [f'slot {k}' for k in range(4)]
    log = pd.DataFrame({'step': [1, 2], 'loss': [1.0, 0.5], 'perplexity': [2.0, 3.0], 'model': 'a'})
    evaluations = pd.DataFrame({'step': [2], 'fg_ari': [1.0], 'mbo_i': [2.0], 'model': 'a'})
    figure = plots.show_training(log, evaluations)
    assert figure.axes[0].get_title(loc='left') == 'reconstruction loss'
    figure = plots.show_code_usage(np.array([5, 5, 0, 10]))
    assert 'perplexity 2.8 of 4' in figure.axes[0].get_title(loc='left')
    figure = plots.show_codes({'code 1': [images[0]], 'code 2': list(images)}, columns=3)
    assert len(figure.axes) == 6
    assert plots.save(figure, tmp_path / 'deep' / 'codes.png').stat().st_size > 1000


@pytest.fixture
def style():
    with mpl.rc_context():
        plots.style()
        yield
    plt.close('all')


def test_the_style_is_the_file_of_the_book(style):
    assert plots.STYLE.is_file()
    cycle = plt.rcParams['axes.prop_cycle'].by_key()['color']
    assert len(set(cycle)) == 8
    assert plots.METHOD_COLOURS['baseline'] == cycle[0]


def test_a_method_has_one_colour_in_every_figure(style):
    for names in (['baseline', 'top-down'], ['other', 'top-down', 'baseline'], ['top-down']):
        colours = plots.palette(names)
        assert colours['top-down'] == plots.METHOD_COLOURS['top-down']
        assert len(set(colours.values())) == len(names)
    assert not set(plots.METHOD_COLOURS.values()) & set(plots.OTHER_COLOURS)
    log = pd.DataFrame(
        {'step': [1, 1], 'loss': [1.0, 0.5], 'perplexity': [np.nan, 3.0], 'model': ['top-down', 'baseline']}
    )
    evaluations = pd.DataFrame({'step': 1, 'fg_ari': 1.0, 'mbo_i': 2.0, 'model': ['top-down', 'baseline']})
    lines = plots.show_training(log, evaluations).axes[0].get_legend().get_lines()
    assert mpl.colors.to_hex(lines[0].get_color()).upper() == plots.METHOD_COLOURS['top-down']


def test_colours_that_share_a_figure_differ_for_the_colour_blind():
    """Seen without red (protanopia) or without green (deuteranopia), after Viénot, Brettel and Mollon (1999)."""
    blind = {
        'protanopia': [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
        'deuteranopia': [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    }
    models = ['baseline', 'top-down', 'six-iterations', 'k-means on tokens']
    for names in (models, ['codes', 'k-means on slots', 'codes, shuffled']):
        rgb = np.array([mpl.colors.to_rgb(plots.METHOD_COLOURS[name]) for name in names]) ** 2.2
        for matrix in blind.values():
            seen = np.clip(rgb @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
            apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + np.eye(len(names))
            assert apart.min() > 0.15


def test_forest_shows_every_interval_and_fills_the_clear_ones(style):
    effects = pd.DataFrame([
        {'variant': v, 'metric': m, 'difference': d, 'low': d - 1, 'high': d + 1}
        for v, d in (('top-down', 0.2), ('x', 3.0)) for m in ('fg_ari', 'mbo_i')
    ])  # fmt: skip
    figure = plots.show_forest(effects, 'baseline', {'fg_ari': 'FG-ARI', 'mbo_i': 'mBO', 'miou': 'none'})
    assert [axis.get_title(loc='left') for axis in figure.axes] == ['FG-ARI', 'mBO']
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ['top-down', 'x']
    points = [line for line in figure.axes[0].lines if line.get_marker() == 'o']
    assert [point.get_markerfacecolor() == 'white' for point in points] == [True, False]
    effects[['low', 'high']] = np.nan  # one seed: nothing is clear
    axis = plots.show_forest(effects, 'baseline', {'fg_ari': 'FG-ARI'}).axes[0]
    points = [line for line in axis.lines if line.get_marker() == 'o']
    assert [point.get_markerfacecolor() for point in points] == ['white'] * 2


def test_points_and_lines_show_every_run(style):
    frame = pd.DataFrame([
        {'level': level, 'model': model, 'seed': seed, 'fg_ari': seed + level}
        for level in (0, 1, 2) for model in ('baseline', 'top-down') for seed in (0, 1)
    ])  # fmt: skip
    figure = plots.show_points(frame, 'level', 'fg_ari', 'model')
    assert len(figure.axes[0].patches) == 6
    figure = plots.show_lines(frame, 'level', {'fg_ari': 'FG-ARI', 'none': 'absent'}, 'model', 'level')
    means = [line.get_ydata().tolist() for line in figure.axes[0].lines if len(line.get_ydata()) == 3]
    assert means == [[0.5, 1.5, 2.5]] * 2
    names = frame.assign(level=frame.level.map({0: 'c', 1: 'a', 2: 'b'}))
    figure = plots.show_rows(names, 'level', {'fg_ari': 'FG-ARI'}, 'model')
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ['c', 'a', 'b']
    figure = plots.show_lines(frame.assign(level=2**frame.level), 'level', {'fg_ari': 'FG-ARI'}, 'model', 'E', log=True)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ['1', '2', '4']


def test_saved_images_have_few_colours_and_keep_their_size():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    with io.BytesIO() as file:
        image.save(file, 'png')
        data = file.getvalue()
    for most in (256, 16):
        small = plots.squeeze_png(data, most)
        found = Image.open(io.BytesIO(small)).convert('RGB')
        assert len(small) < len(data) / 2
        assert found.size == (80, 60)
        assert 1 < len(found.getcolors(80 * 60)) <= most
    few = Image.new('RGB', (2, 2))
    with io.BytesIO() as file:
        few.save(file, 'png')
        data = file.getvalue()
    assert len(plots.squeeze_png(data)) <= len(data)  # never larger
