"""The evaluation protocols as data: what public evaluators do between a prediction and a number. Standard library only.

``oclf`` is the one behind the paper's tables, ``spot`` the other one in wide use. Their metrics agree on identical
label maps; every difference between their figures comes from a field below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One evaluator's choices."""

    name: str
    image_resize: str
    """Of images, short side to the encoder's size: bicubic (on tensors, not antialiased, clamped to [0, 1]) or
    bilinear (antialiased, as Pillow's)."""
    mask_resize: str
    """Of true masks, short side to the mask size: nearest-exact or nearest."""
    keep_crowd: bool
    """Whether COCO's crowd regions always count as objects; else it is an option (``keep_crowd``)."""
    class_overlap: str
    """In class masks: 'highest' id wins where pixels have several classes, or 'remove' pixels of several instances, of
    one class or not, from truth and prediction."""
    void: str
    """VOC's label 255: 'background' in both as they are released."""
    heads: str
    """How the decoder's heads make one mask: their mean, or their sum renormalised (the same after argmax)."""


PROTOCOLS = {
    'oclf': Protocol('oclf', 'bicubic', 'nearest-exact', False, 'highest', 'background', 'mean'),
    'spot': Protocol('spot', 'bilinear', 'nearest', True, 'remove', 'background', 'sum, renormalised'),
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f'protocol must be one of {", ".join(PROTOCOLS)}, got {str(name)[:80]!r}')
    return PROTOCOLS[name]
