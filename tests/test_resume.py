"""A run goes on only as what it began: what a checkpoint is compared with."""

import copy

import pytest
import torch

from topdown.train.loop import load_run, train_model


@pytest.fixture
def begun(tiny, tmp_path, encoder):
    """The folder of a run of two steps."""
    train_model(tiny, tmp_path, encoder, progress=False, stop_at=2)
    return tmp_path


@pytest.mark.parametrize('changes', [{'seed': 1}, {'lr': 1e-3}, {'codebook_size': 9}, {'flip': False}], ids=str)
def test_another_experiment_does_not_go_on_from_a_checkpoint(tiny, begun, encoder, changes):
    before = (begun / 'checkpoint.safetensors').read_bytes()
    with pytest.raises(ValueError, match=r'checkpoint\.safetensors'):
        train_model(tiny.with_(**changes), begun, encoder, progress=False)
    assert (begun / 'checkpoint.safetensors').read_bytes() == before


def test_other_encoder_weights_are_refused_on_resume_and_on_loading(tiny, begun, encoder):
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.vit.blocks[0].mlp.fc1.bias[0] += 1e-3
    with pytest.raises(ValueError, match='encoder'):
        train_model(tiny, begun, other, progress=False)
    with pytest.raises(ValueError, match='encoder'):
        load_run(begun / 'checkpoint.safetensors', other)
    train_model(tiny, begun, encoder, progress=False)
