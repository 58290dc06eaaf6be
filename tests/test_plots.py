"""Figures: that they show what they are given."""

import matplotlib as mpl
import numpy as np
import pandas as pd

from topdown import plots

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
