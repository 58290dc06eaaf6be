"""The page with the whole method: its classes are taken from it and held against the package's model."""

from pathlib import Path

import jupytext
import pytest
import torch

from topdown import preset
from topdown.model.slot_model import SlotModel

PAGE = Path(__file__).parent.parent / 'book' / '00_the_method.py'
SIZES = {
    'num_slots': 5, 'slot_size': 16, 'codebook_size': 8, 'decoder_layers': 2, 'decoder_heads': 2, 'input_masking': 0.4,
    'dead_code_threshold': 1.5,
}  # fmt: skip
WIDTH, PATCHES, BATCH = 24, 36, 6


@pytest.fixture(scope='module')
def page():
    """What the page's cells tagged ``method`` define."""
    names: dict = {}
    cells = [c for c in jupytext.read(PAGE).cells if 'method' in c.metadata.get('tags', [])]
    assert len(cells) == 4
    for cell in cells:
        exec(cell.source, names)
    return names


@pytest.fixture
def both(page):
    """The package's model and the page's, with the same weights."""
    settings = preset('toybox', **SIZES).model
    torch.manual_seed(0)
    package = SlotModel(settings, WIDTH, PATCHES)
    own = page['TopDown'](
        WIDTH, settings.num_slots, settings.slot_size, settings.codebook_size, settings.decoder_layers,
        settings.decoder_heads, settings.input_masking, settings.dead_code_threshold,
    )  # fmt: skip
    own.load_state_dict(package.state_dict())  # strict: every weight has its place, and there are no others
    return package, own


def test_steps_of_the_page_are_those_of_the_package(both):
    """Losses, codes and gradients of the first twelve steps, with k-means, moving averages and revival among them."""
    histories = []
    for model in both:
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        generator = torch.Generator().manual_seed(1)
        torch.manual_seed(2)
        history = []
        for _ in range(12):
            tokens = torch.randn(BATCH, PATCHES, WIDTH, generator=generator)
            out = model(tokens)
            own = isinstance(out, dict)
            loss, index = (out['error'], out['index']) if own else (out.loss, out.code_index)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
            optimizer.step()
            history.append((float(loss), float(norm), index, model.codebook.codes.clone()))
        histories.append(history)
    for step, (package, own) in enumerate(zip(*histories, strict=True)):
        assert own[0] == pytest.approx(package[0], rel=1e-4), step
        assert own[1] == pytest.approx(package[1], rel=1e-3), step
        assert torch.equal(own[2], package[2]), step
        torch.testing.assert_close(own[3], package[3], rtol=1e-3, atol=1e-4)
    assert len({round(loss, 4) for loss, *_ in histories[0]}) == 12


def test_slots_and_masks_of_the_page_are_those_of_the_package(both):
    tokens = torch.randn(BATCH, PATCHES, WIDTH)
    found = []
    for model in both:
        model.train()
        torch.manual_seed(3)
        model(tokens)  # starts the codebook
        model.eval()
        torch.manual_seed(4)
        with torch.no_grad():
            found.append(model(tokens))
    theirs, mine = found
    for name in ('slots', 'attention', 'masks'):
        torch.testing.assert_close(mine[name], getattr(theirs, name), rtol=1e-4, atol=1e-5)
    assert torch.equal(mine['index'], theirs.code_index)
    assert float(mine['error']) == pytest.approx(float(theirs.reconstruction_loss), rel=1e-5)


def test_the_page_is_short():
    cells = [c for c in jupytext.read(PAGE).cells if 'method' in c.metadata.get('tags', [])]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    assert len(lines) < 200
