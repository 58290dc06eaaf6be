"""Every parameter starts as the released code's does: mean, spread and bound against the rules; copies; how many."""

import dataclasses
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import topdown
from tests.starts import expected_start, measured_start, table
from topdown.model.slot_model import SlotModel

EVERYTHING = {
    'decoder_layers': 1, 'patch_order': 'random', 'share_weights': False, 'predictor': 'mlp', 'modulate_queries': True,
    'modulate_mlp': True,
}  # fmt: skip
SEEDS = 5


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return SlotModel(dataclasses.replace(topdown.preset('coco').model, **changes), 768, 196)


def agrees(start, entries, mean, spread, largest):
    """Whether a sample of that many entries can come from the distribution, five standard errors wide."""
    if not start.spread:
        return mean == start.mean and spread == 0
    near = abs(mean - start.mean) < 5 * start.spread / entries**0.5
    near &= abs(spread / start.spread - 1) < 5 * (0.5 / entries) ** 0.5
    if math.isinf(start.bound):
        return near and largest > 2.5 * start.spread  # a uniform distribution ends at 1.73
    return near and 1 - 10 / entries < largest / start.bound < 1 + 1e-6


@pytest.mark.parametrize('changes', [{'decoder_layers': 2}, EVERYTHING], ids=['coco', 'everything'])
def test_every_parameter_starts_by_its_rule(changes):
    models = [make(seed, **changes) for seed in range(SEEDS)]
    wrong = {}
    for name, _ in models[0].named_parameters():
        start, measured = expected_start(models[0], name), measured_start(models, name)
        if not agrees(start, *measured):
            wrong[name] = start, measured
    assert not wrong, wrong


def test_a_parameter_without_a_rule_is_found():
    model = make(decoder_layers=1)
    model.decoder.register_parameter('another', nn.Parameter(torch.zeros(3)))
    with pytest.raises(LookupError, match=r'decoder\.another'):
        expected_start(model, 'decoder.another')


def test_another_start_is_found():
    """The comparison is sharp: what other rules give does not pass for this one."""
    model = make(decoder_layers=1)

    def verdict(name):
        return agrees(expected_start(model, name), *measured_start([model], name))

    width, query = 768, 'decoder.layers.0.self_attention.project_q'
    others = {
        'decoder.begin_token': 0.02 * torch.randn(1, 1, width),
        'decoder.mask_token': 2 * torch.rand(1, 1, width) - 1,
        'decoder.project_input.0.weight': nn.Linear(width, width).weight.data,
        f'{query}.weight': nn.init.xavier_uniform_(torch.empty(width, width)),
        f'{query}.bias': nn.Linear(width, width).bias.data,
        'head.out.bias': 1e-3 * torch.ones(256),
    }  # fmt: skip
    for name, other in others.items():
        assert verdict(name), name
        model.get_parameter(name).data.copy_(other)
        assert not verdict(name), name


def test_attention_starts_as_torch_does_with_one_stacked_matrix():
    torch.manual_seed(0)
    theirs, ours = nn.MultiheadAttention(512, 8), make(decoder_layers=1).decoder.layers[0]
    for attention in (ours.self_attention, ours.cross_attention):
        parts = [attention.project_q, attention.project_k, attention.project_v]
        scale = (512 / 768) ** 0.5  # bounds fall with the root of the width
        for part in parts:
            for measure in (torch.std, torch.amax):
                expected = measure(theirs.in_proj_weight) * scale
                torch.testing.assert_close(measure(part.weight), expected, rtol=0.005, atol=0)
        torch.testing.assert_close(
            attention.project_out.weight.std(), theirs.out_proj.weight.std() * scale, rtol=0.005, atol=0
        )
        biases = torch.cat([part.bias for part in (*parts, attention.project_out)])
        assert not biases.any()
        assert not theirs.in_proj_bias.any()
        assert not theirs.out_proj.bias.any()


def test_layers_start_as_copies_that_are_not_tied():
    decoder = make().decoder
    first, *others = decoder.layers
    assert len(others) == 3
    for layer in others:
        assert all(map(torch.equal, first.state_dict().values(), layer.state_dict().values()))
    parameters = list(decoder.layers.parameters())
    assert len({p.data_ptr() for p in parameters}) == len(parameters)
    decoder(torch.randn(1, 7, 256), torch.randn(1, 196, 768)).reconstruction.square().mean().backward()
    torch.optim.Adam(decoder.parameters(), 1e-3).step()
    for name, value in first.named_parameters():
        assert not any(torch.equal(value, layer.get_parameter(name)) for layer in others), name


def test_parameters_of_the_coco_configuration():
    with torch.device('meta'):
        assert sum(p.numel() for p in make().parameters()) == 40_571_904


def test_published_starts_are_those_of_the_code():
    published = pd.read_csv(Path(__file__).parent.parent / 'figures' / 'tables' / 'starts.csv', dtype=str)
    rules = ['parameter', 'shape', 'start', 'rule: mean', 'rule: spread', 'rule: bound']
    expected = table(1)[rules].astype(str)
    assert published[rules].equals(expected)
    for measured, rule in (('mean', 'rule: mean'), ('spread', 'rule: spread')):
        found, by_rule = (published[column].astype(float) for column in (measured, rule))
        assert (found - by_rule).abs().max() < 0.005


@pytest.mark.parametrize('name', ['slotwise', 'clevr6_smoke'])
def test_models_with_other_decoders_keep_the_start_of_their_published_runs(name):
    """Biases of the head and of the slots' MLP are torch's there, and zero with the paper's decoder."""
    config = topdown.preset(name).model
    pixels = config.decoder == 'broadcast'
    model = SlotModel(config, 3 if pixels else 128, 32**2 if pixels else 144)
    paper = SlotModel(dataclasses.replace(config, decoder='autoregressive'), 128, 144)
    for layers in ((model.head, model.slot_attention.mlp), (paper.head, paper.slot_attention.mlp)):
        linear = [layer for part in layers for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
        assert len(linear) >= 4
        assert all(bool(layer.bias.any()) == (layers[0] is model.head) for layer in linear)
