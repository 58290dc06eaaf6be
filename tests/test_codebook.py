"""The codebook against NumPy, and its invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import VectorQuantize

from topdown.model.codebook import Codebook, nearest_index, perplexity


def ready(size=5, width=3, **options):
    """A codebook with codes in place."""
    book = Codebook(size, width, **options)
    book.codes.copy_(torch.randn(size, width))
    book.cluster_size.copy_(torch.rand(size) + 1)
    book.code_sum.copy_(book.codes * book.cluster_size[:, None])
    book.initialized.fill_(True)
    return book


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 9), width=st.integers(1, 5), count=st.integers(1, 30))
def test_equals_reference(seed, size, width, count):
    torch.manual_seed(seed)
    book = ready(size, width, ema_decay=0.9, dead_code_threshold=0.0)
    codes, hits, sums = (t.clone().double().numpy() for t in (book.codes, book.cluster_size, book.code_sum))
    x = torch.randn(count, width)
    out = book.train()(x)
    vectors = x.double().numpy()
    index = np.array([np.argmin([np.sum((v - c) ** 2) for c in codes]) for v in vectors])
    np.testing.assert_array_equal(out.index.numpy(), index)
    np.testing.assert_allclose(out.codes.numpy(), codes[index], atol=1e-6)  # codes from before the update
    for e in range(size):
        members = vectors[index == e]
        hits[e] = 0.9 * hits[e] + 0.1 * len(members)
        sums[e] = 0.9 * sums[e] + 0.1 * members.sum(0)
    smoothed = (hits + 1e-5) / (hits.sum() + size * 1e-5) * hits.sum()
    np.testing.assert_allclose(book.cluster_size.numpy(), hits, rtol=1e-5)
    np.testing.assert_allclose(book.codes.numpy(), sums / smoothed[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('seed', range(5))
def test_equals_vector_quantize_pytorch(seed):
    """Twenty training steps of the library the released code builds on, from the same codes, revival apart."""
    torch.manual_seed(seed)
    book = ready(7, 4, ema_decay=0.9, dead_code_threshold=0.0)
    theirs = VectorQuantize(
        dim=4, codebook_size=7, decay=0.9, eps=1e-5, threshold_ema_dead_code=0, kmeans_init=False, heads=1,
        commitment_weight=0.25, rotation_trick=False, stochastic_sample_codes=False, use_cosine_sim=False,
        learnable_codebook=False, sync_codebook=False, ema_update=True, affine_param=False,
    )  # fmt: skip
    inner = theirs._codebook
    inner.embed.data.copy_(book.codes[None])
    inner.embed_avg.data.copy_(book.code_sum[None])
    inner.cluster_size.data.copy_(book.cluster_size[None])
    for _ in range(20):
        x = torch.randn(3, 6, 4)
        ours_x, their_x = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = book.train()(ours_x)
        codes, index, loss = theirs.train()(their_x)
        torch.testing.assert_close(found.index, index)
        torch.testing.assert_close(found.codes, codes, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(0.25 * found.commitment, loss.squeeze(), atol=1e-5, rtol=1e-5)
        weight = torch.randn(3, 6, 4)
        ((found.codes * weight).sum() + 0.25 * found.commitment).backward()
        ((codes * weight).sum() + loss.sum()).backward()
        torch.testing.assert_close(ours_x.grad, their_x.grad, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(book.codes, inner.embed[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(book.cluster_size, inner.cluster_size[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(book.code_sum, inner.embed_avg[0], atol=1e-5, rtol=1e-5)


def test_start_and_revival_equal_vector_quantize_pytorch():
    """The same random draws, so the same k-means start and the same codes revived where exactly one dies."""
    torch.manual_seed(0)
    x = torch.randn(200, 4)
    theirs = VectorQuantize(
        dim=4, codebook_size=6, decay=0.9, eps=1e-5, threshold_ema_dead_code=0, kmeans_init=True, kmeans_iters=10,
        rotation_trick=False, sync_codebook=False,
    )  # fmt: skip
    book = Codebook(6, 4, ema_decay=0.9, dead_code_threshold=0.0)
    torch.manual_seed(7)
    theirs.train()(x[None])
    torch.manual_seed(7)
    book.train()(x)
    inner = theirs._codebook
    torch.testing.assert_close(book.cluster_size, inner.cluster_size[0])
    torch.testing.assert_close(book.codes, inner.embed[0], atol=1e-5, rtol=1e-5)


def test_gradient_passes_straight_through():
    book = ready().eval()
    x = torch.randn(2, 4, 3, requires_grad=True)
    weight = torch.randn(2, 4, 3)
    (book(x).codes * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight)


def test_commitment_pulls_the_input_only():
    book = ready().eval()
    x = torch.randn(7, 3, requires_grad=True)
    out = book(x)
    out.commitment.backward()
    torch.testing.assert_close(x.grad, 2 * (x.detach() - book.codes[out.index]) / x.numel())


def test_starts_by_kmeans_from_training_data_only():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = centres.repeat_interleave(40, 0) + 0.1 * torch.randn(120, 2)
    book = Codebook(3, 2)
    with pytest.raises(RuntimeError, match='training batch'):
        book.eval()(x)
    for seed in range(20):  # Lloyd's algorithm depends on its start; among 20, the right one is found
        torch.manual_seed(seed)
        book.start(x)
        if len(set(nearest_index(centres, book.codes).tolist())) == 3:
            break
    found = book.codes[nearest_index(centres, book.codes)]
    torch.testing.assert_close(found, centres, atol=0.1, rtol=0)
    torch.testing.assert_close(book.cluster_size.sort().values, torch.full((3,), 40.0))


def test_evaluation_changes_nothing():
    book = ready().eval()
    before = {name: t.clone() for name, t in book.state_dict().items()}
    book(torch.randn(50, 3))
    assert all(torch.equal(before[name], t) for name, t in book.state_dict().items())


def test_dead_codes_are_revived_from_the_batch():
    torch.manual_seed(0)
    book = ready(4, 2, ema_decay=0.5, dead_code_threshold=0.3)
    book.codes[3] = 1000.0
    book.cluster_size[3] = 0.4
    x = torch.randn(32, 2)
    book.train()(x)
    assert (x == book.codes[3]).all(1).any()
    assert book.cluster_size[3] == pytest.approx(0.3)
    torch.testing.assert_close(book.code_sum[3], 0.3 * book.codes[3])


def test_perplexity_counts_codes_in_use():
    assert perplexity(torch.tensor([8.0, 0, 0])) == pytest.approx(1.0)
    assert perplexity(torch.tensor([5.0, 5, 5, 5, 0])) == pytest.approx(4.0)


@pytest.mark.parametrize(
    'bad', [{'size': 0}, {'width': 0}, {'ema_decay': 1.0}, {'ema_decay': -0.1}, {'dead_code_threshold': -1.0}], ids=str
)
def test_impossible_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Codebook(**{'size': 4, 'width': 2, **bad})


@pytest.mark.parametrize(('vectors', 'dead'), [(32, 4), (6, 5), (6, 8)])
def test_revived_codes_are_distinct_as_far_as_there_are_vectors(vectors, dead):
    torch.manual_seed(0)
    book = ready(8, 2, ema_decay=0.5, dead_code_threshold=0.3)
    book.codes[8 - dead :] = 1000.0
    book.cluster_size.fill_(1000.0)
    book.cluster_size[8 - dead :] = 0.0
    if dead == 8:  # all hits die out at once
        book.dead_code_threshold = 100.0
    x = torch.randn(vectors, 2)
    book.train()(x)
    found = book.codes[8 - dead :]
    assert all((x == code).all(1).any() for code in found)
    assert len(found.unique(dim=0)) == min(vectors, dead)
    used, revived = book.usage()
    assert revived == dead / 8
    assert 0 < used <= 1 - (dead < 8) * dead / 8
