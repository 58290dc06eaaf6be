"""Self-training: the loss against NumPy, and training with a teacher."""

import itertools

import numpy as np
import pytest
import torch

from topdown.train.loop import train_model
from topdown.train.teach import teaching_loss


def oracle(attention: np.ndarray, masks: np.ndarray) -> float:
    """The loss in loops: every match is tried."""
    total = 0.0
    for a, m in zip(attention, masks, strict=True):
        own, taught = a.argmax(0), m.argmax(0)
        iou = [
            [((taught == i) & (own == j)).sum() / max(1, ((taught == i) | (own == j)).sum()) for j in range(len(a))]
            for i in range(len(a))
        ]
        best = max(itertools.permutations(range(len(a))), key=lambda pi: sum(iou[i][j] for i, j in enumerate(pi)))
        total -= sum(np.log(a[best[taught[n]], n]) for n in range(a.shape[1]))
    return total / (attention.shape[0] * attention.shape[2])


def test_the_loss_is_that_of_the_best_match():
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(3, 4, 30, generator=generator).softmax(dim=1).requires_grad_()
    masks = torch.rand(3, 4, 30, generator=generator)
    loss = teaching_loss(attention, masks)
    assert loss.item() == pytest.approx(oracle(attention.detach().numpy(), masks.numpy()), rel=1e-5)
    loss.backward()
    assert attention.grad.abs().sum() > 0


def test_the_order_of_slots_does_not_matter_and_agreement_costs_least():
    attention = torch.eye(4).repeat_interleave(5, dim=1)[None] * 0.96 + 0.01
    loss = teaching_loss(attention, attention[:, [2, 0, 3, 1]])
    assert loss.item() == pytest.approx(-np.log(0.97), rel=1e-5)
    assert teaching_loss(attention, attention.roll(3, dims=2)) > loss


@pytest.fixture
def teacher(tiny, encoder, tmp_path):
    train_model(tiny, tmp_path / 'teacher0', encoder, progress=False)
    return str(tmp_path / 'teacher{seed}' / 'checkpoint.safetensors')


def test_a_taught_model_starts_as_it_would_alone_and_learns_something_else(tiny, encoder, teacher, tmp_path):
    taught = train_model(
        tiny.with_(teacher=teacher, teacher_weight=0.5, log_every=1), tmp_path / 'taught', encoder, progress=False
    )
    alone = train_model(tiny.with_(log_every=1), tmp_path / 'alone', encoder, progress=False)
    assert taught.log.loss.iloc[0] == alone.log.loss.iloc[0]  # the log has the model's own loss
    assert taught.log.loss.iloc[-1] != alone.log.loss.iloc[-1]


def test_a_taught_run_goes_on_bit_for_bit(tiny, encoder, teacher, tmp_path):
    config = tiny.with_(teacher=teacher, teacher_weight=0.5)
    whole = train_model(config, tmp_path / 'whole', encoder, progress=False)
    train_model(config, tmp_path / 'parts', encoder, progress=False, stop_at=2)
    parts = train_model(config, tmp_path / 'parts', encoder, progress=False)
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_teacher_must_be_there_at_its_end_and_have_as_many_slots(tiny, encoder, teacher, tmp_path):
    with pytest.raises(ValueError, match='teacher_weight'):
        tiny.with_(teacher=teacher)
    with pytest.raises(ValueError, match='teacher_weight'):
        tiny.with_(teacher_weight=0.1)
    taught = tiny.with_(teacher=teacher, teacher_weight=0.1)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        train_model(taught.with_(teacher='nowhere'), tmp_path / 'a', encoder, progress=False)
    more = taught.with_(num_slots=tiny.model.num_slots + 1)
    with pytest.raises(ValueError, match=f'num_slots={more.model.num_slots}'):
        train_model(more, tmp_path / 'b', encoder, progress=False)
    train_model(tiny.with_(steps=tiny.train.steps + 1), tmp_path / 'half', encoder, progress=False, stop_at=1)
    half = str(tmp_path / 'half' / 'checkpoint.safetensors')
    with pytest.raises(ValueError, match=f'1 of {tiny.train.steps + 1} steps'):
        train_model(taught.with_(teacher=half), tmp_path / 'c', encoder, progress=False)
