"""The evaluation protocols as data: what public evaluators do between a prediction and a number. Standard library only.

``oclf`` is the one behind the paper's tables, ``spot`` another in wide use, ``bench`` that of the tables of DIAS,
SmoothSA and others, ``slotdiffusion`` that of SlotDiffusion and CODA. Their metrics agree on disjoint masks where no
edge case applies; every difference between their figures comes from a field below.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """One evaluator's choices."""

    name: str
    imitates: str
    """Whose evaluator it is, and the version that was read."""
    masks: str = 'decoder'
    """Whose masks are scored if none are asked for: the decoder's, or 'slots' for slot attention's last pass."""
    heads: str = 'mean'
    """How the decoder's heads make one mask: their mean, or their sum renormalised (the same after argmax)."""
    image_resize: str = 'bicubic'
    """Of images, short side to the encoder's size: bicubic (on tensors, not antialiased, clamped to [0, 1]), bilinear
    (antialiased, as Pillow's) or opencv (linear, not antialiased, in 8 bits); or square: the largest centre square,
    antialiased to 8 / 7 of the encoder's size, then bicubic to it (256, then 224)."""
    mask_resize: str = 'nearest-exact'
    """Of true masks, short side to the mask size: nearest-exact, nearest or opencv's; or square, nearest-exact."""
    mask_scale: float | None = None
    """Mask size as a multiple of the encoder's size; None for the setting ``mask_size``."""
    panoptic: bool = False
    """Whether COCO's truth are the things of its panoptic maps; other data sets have their own masks."""
    crowd: str = 'option'
    """COCO's crowd regions as objects: keep, drop (as what is marked ``ignore``), or by the setting ``keep_crowd``."""
    class_overlap: str = 'highest'
    """In class masks: 'highest' id wins where pixels have several classes, or pixels of several instances, of one class
    or not, are left out of truth and prediction ('remove') or set aside as in instance masks ('aside')."""
    aside: str = 'removed'
    """Pixels of several instances: 'removed' from truth and prediction; 'unlabelled': of no true segment, but of
    predicted areas and unions; 'apart': background of the truth, and an extra segment of the prediction."""
    void: str = 'background'
    """VOC's 255 and other unknown pixels: background, or what the setting ``void`` says; or 'aside', as overlaps."""
    background: tuple[str, ...] = ()
    """Metrics in which the background counts as one more object."""
    class_metrics: tuple[str, ...] = ('mbo_c',)
    """Scores over classes instead of instances."""
    empty_counts: bool = True
    """Whether an image without objects counts 1 in FG-ARI, or is left out of it."""
    no_background: str = 'nothing'
    """Of a cut: nothing special; the 'first' object becomes it; 'colour': so in VOC alone, the first by colour."""
    erased: bool = False
    """Whether an object of which overlaps leave nothing counts 0, if one with a higher label is left."""
    batch_size: int = 0
    """Images of a batch whose mean is a term of the released mean (see ``summarize``); 0 for means over images."""

    def mask_side(self, image_size: int, mask_size: int) -> int:
        """Side M, in pixels, at which masks are compared; soft masks are upsampled to it."""
        return mask_size if self.mask_scale is None else round(image_size * self.mask_scale)


PROTOCOLS = {
    known.name: known
    for known in (
        Protocol('oclf', 'object-centric-learning-framework (DINOSAUR), with torchvision 0.15'),
        Protocol(
            'spot', 'SPOT, as released', heads='sum, renormalised', image_resize='bilinear', mask_resize='nearest',
            crowd='keep', class_overlap='remove',
        ),
        Protocol(
            'bench', 'SmoothSA b26d2b7 (2026-06), with readers as DIAS cc1d545 and arithmetic as RandSF.Q b2f7894',
            image_resize='square', mask_resize='square', mask_scale=8 / 7, panoptic=True, crowd='keep',
            aside='unlabelled', void='aside', background=('mbo_i', 'miou'), class_metrics=(), empty_counts=False,
            no_background='colour',
        ),
        Protocol(
            'slotdiffusion', 'SlotDiffusion eacfc9a with nerv 5709625; CODA 883a932 gives the same numbers per image',
            masks='slots', heads='one', image_resize='opencv', mask_resize='opencv', mask_scale=1.0, crowd='drop',
            class_overlap='aside', aside='apart', void='aside', background=('miou', 'miou_c'),
            class_metrics=('mbo_c', 'miou_c', 'fg_ari_c'), no_background='first', erased=True, batch_size=64,
        ),
    )
}  # fmt: skip


def get_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f'protocol must be one of {", ".join(PROTOCOLS)}, got {str(name)[:80]!r}')
    return PROTOCOLS[name]
