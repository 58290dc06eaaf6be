"""The presets: settings of whole experiments, and the variants that chapters compare. Standard library only."""

from __future__ import annotations

import dataclasses
import reprlib

from topdown.config import Config, DataConfig, EncoderConfig, ModelConfig, TrainConfig, typed

_SLOTWISE = Config(
    name='slotwise',
    data=DataConfig(dataset='toybox', mask_size=192),
    encoder=EncoderConfig(name='vit_toybox_patch8_96', image_size=96, layer=5, final_norm=True),
    model=ModelConfig(
        num_slots=7, slot_size=64, codebook_size=64, dead_code_threshold=0.3, decoder='slotwise', decoder_layers=2,
        decoder_heads=4, decoder_hidden=128,
    ),
    train=TrainConfig(
        steps=3000, batch_size=16, lr=2e-3, warmup_steps=200, lr_half_life=1000, num_workers=0, cache_tokens=True,
        threads=1, eval_every=1000, checkpoint_every=500, log_every=10,
    ),
    seeds=2,
)  # fmt: skip


_TOYBOX = dataclasses.replace(
    _SLOTWISE.with_(
        decoder='autoregressive', decoder_layers=1, input_masking=0.3, warmup_steps=300, lr_half_life=1500
    ),
    name='toybox',
)  # fmt: skip


_CATEGORY = dataclasses.replace(
    _TOYBOX.with_(
        encoder='vit_toybox_category_patch8_96', decoder_layers=2, input_masking=0.5, steps=5000, lr=1e-3,
        warmup_steps=500, lr_half_life=3000, eval_every=500, seeds=5,
    ),
    name='toybox_category',
)  # fmt: skip


_PAPER = Config(name='coco')


_SHORT = dataclasses.replace(
    _PAPER.with_(
        protocol='bench', random_crop=True, encoder='vit_small_patch14_reg4_dinov2.lvd142m', decoder_heads=4,
        batch_size=32, steps=100_000, lr=2e-4, warmup_steps=5_000, lr_half_life=20_000, eval_every=10_000,
    ),
    name='coco_short',
)  # fmt: skip


_WIDE = dataclasses.replace(
    _SLOTWISE.with_(
        dataset='toybox_wide', mask_size=144, random_crop=True, cache_tokens=False, num_slots=6,
        toybox={'num_train': 1500, 'num_val': 200, 'categories': 6}, steps=500, warmup_steps=50, lr_half_life=250,
        eval_every=100, checkpoint_every=100, seeds=3,
    ),
    name='voc_toybox',
)  # fmt: skip


_CLIPS = dataclasses.replace(
    _SLOTWISE.with_(
        dataset='toybox_clips', mask_size=96, flip=False, num_slots=11,
        toybox={'size': 96, 'num_train': 60, 'num_val': 8, 'min_objects': 5, 'max_objects': 9}, steps=2000,
        lr_half_life=700, eval_every=500, seeds=3,
    ),
    name='movi_toybox',
)  # fmt: skip


_PIXELS = Config(
    name='clevr6_toybox',
    data=DataConfig(
        dataset='toybox', mask_size=32, flip=False,
        toybox={
            'size': 32, 'num_train': 4000, 'num_val': 320, 'max_objects': 4, 'dissimilarity': 0.0, 'clutter': 0.0,
            'background_contrast': 0.0, 'colour_jitter': 0.0, 'grey_ground': True, 'most_hidden': 0.05,
        },
    ),
    encoder=EncoderConfig(name='pixels', image_size=32),
    model=ModelConfig(
        num_slots=5, slot_size=64, qkv_size=128, codebook_size=64, dead_code_threshold=0.1, decoder='broadcast',
        cnn_size=32,
    ),
    train=TrainConfig(
        steps=5000, batch_size=8, lr=1e-3, warmup_steps=100, lr_half_life=20_000, num_workers=0, cache_tokens=True,
        threads=1, eval_every=500, checkpoint_every=500, log_every=10,
    ),
    seeds=2,
)  # fmt: skip


_DIAL = Config(
    name='dial',
    data=DataConfig(
        dataset='toybox_dial', mask_size=192, flip=False, toybox={'num_train': 1500, 'num_val': 300}, evidence=0.3
    ),
    encoder=EncoderConfig(name='tokens', image_size=12, feature_size=144),
    model=ModelConfig(
        num_slots=7, slot_size=64, codebook_size=64, dead_code_threshold=0.3, decoder_layers=1, decoder_heads=4,
        input_masking=0.5,
    ),
    train=TrainConfig(
        steps=2000, batch_size=16, lr=2e-3, warmup_steps=300, lr_half_life=1500, num_workers=0, cache_tokens=True,
        threads=1, eval_every=500, checkpoint_every=500, log_every=10,
    ),
    seeds=3,
)  # fmt: skip


_PHOTOS = dataclasses.replace(
    _PAPER.with_(
        encoder='vit_small_patch14_dinov2.lvd142m', weights='runs/vit_small_focus.safetensors', image_size=168,
        layer=10, codebook_size=128, dead_code_threshold=0.15, decoder_layers=1, decoder_heads=6, input_masking=0.5,
        batch_size=16, steps=10_000, lr=1e-3, warmup_steps=1_000, lr_half_life=4_000, num_workers=0, cache_tokens=True,
        threads=1, eval_every=2_500, checkpoint_every=500, seeds=3,
    ),
    name='photos',
)  # fmt: skip


_PHOTOS_SLOTWISE = dataclasses.replace(
    _PHOTOS.with_(
        decoder='slotwise', decoder_hidden=512, steps=4_000, warmup_steps=300, lr_half_life=2_000, eval_every=1_000,
        seeds=5,
    ),
    name='photos_slotwise',
)  # fmt: skip


VARIANTS: dict[str, dict[str, object]] = {
    'baseline': {'top_down': False},
    'top-down': {},
    'six-iterations': {'top_down': False, 'num_iterations': 6},
    'released_default': {'spatial_modulation': False, 'modulate_queries': True, 'modulate_mlp': True},
    'channel only': {'spatial_modulation': False},
    'spatial only': {'channel_modulation': False},
    'without shifting': {'shift_attention': False},
    'without quantization': {'quantize': False},
    'shuffled codes': {'shuffle_codes': True},
    'true categories': {'quantize': False, 'hinted_codes': True},
    'shuffled categories': {'quantize': False, 'hinted_codes': True, 'shuffle_codes': True},
    'short true categories': {'quantize': False, 'hinted_codes': True, 'hint_scale': 0.125},
    'short shuffled categories': {
        'quantize': False,
        'hinted_codes': True,
        'shuffle_codes': True,
        'hint_scale': 0.125,
    },
    'mlp predictor': {'predictor': 'mlp'},
    'two rounds': {'feedback_rounds': 2},
    'three rounds': {'feedback_rounds': 3},
    'separate weights': {'share_weights': False},
    'in time': {'feedback': 'time'},
}
"""Models that chapters compare, as changes to a preset. ``released_default`` is what the released code runs if none of
its options is set: queries, values and the MLP's hidden units are scaled by channel, and nothing by place."""


_SECONDS = {
    'steps': 12, 'batch_size': 8, 'warmup_steps': 4, 'codebook_size': 16, 'eval_every': 6, 'checkpoint_every': 6,
    'log_every': 1, 'eval_images': 16,
}  # fmt: skip


def _smoke(name: str, base: Config, train: int = 48, val: int = 16, **changes: object) -> Config:
    fixed = {**_SECONDS, 'dead_code_threshold': base.model.dead_code_threshold}
    toybox = {'num_train': train, 'num_val': val}
    return dataclasses.replace(base.with_(**{**fixed, 'toybox': toybox, **changes}), name=name)


PRESETS: dict[str, Config] = {
    'smoke': _smoke('smoke', _TOYBOX, slot_size=32),
    'toybox': _TOYBOX,
    'toybox_category': _CATEGORY,
    'slotwise': _SLOTWISE,
    'slotwise_long': dataclasses.replace(
        _SLOTWISE.with_(steps=8000, lr_half_life=2500, eval_every=2000, seeds=5), name='slotwise_long'
    ),
    'coco': _PAPER,
    'voc': dataclasses.replace(_PAPER.with_(dataset='voc', num_slots=6, steps=250_000, random_crop=True), name='voc'),
    'ade20k': dataclasses.replace(_PAPER.with_(dataset='ade20k', num_slots=11), name='ade20k'),
    'cityscapes': dataclasses.replace(
        _PAPER.with_(dataset='cityscapes', num_slots=11, steps=70_000, random_crop=True), name='cityscapes'
    ),
    'coco_short': _SHORT,
    'voc_short': dataclasses.replace(_SHORT.with_(dataset='voc', num_slots=6), name='voc_short'),
    'coco_spot': dataclasses.replace(
        _PAPER.with_(
            protocol='spot', decoder_heads=6, input_masking=0.0, patch_order='random', steps=92_400,
            lr_half_life=18_480, eval_every=18_480,
        ),
        name='coco_spot',
    ),
    'movi_c': dataclasses.replace(
        _PAPER.with_(dataset='movi_c', num_slots=11, slot_size=128, decoder_heads=4, mask_size=128, flip=False),
        name='movi_c',
    ),
    'movi_e': dataclasses.replace(
        _PAPER.with_(dataset='movi_e', num_slots=24, slot_size=128, decoder_heads=4, mask_size=128, flip=False),
        name='movi_e',
    ),
    'clevr6': dataclasses.replace(
        _PAPER.with_(
            dataset='clevr6', encoder='pixels', image_size=128, mask_size=128, eval_images=320, flip=False,
            slot_size=64, qkv_size=128, decoder='broadcast',
        ),
        name='clevr6',
    ),
    'photos': _PHOTOS,
    'photos_slotwise': _PHOTOS_SLOTWISE,
    'clevr6_toybox': _PIXELS,
    'clevr6_smoke': _smoke('clevr6_smoke', _PIXELS, cnn_size=8, seeds=1),
    'voc_toybox': _WIDE,
    'voc_smoke': _smoke('voc_smoke', _WIDE, seeds=1),
    'movi_toybox': _CLIPS,
    'movi_video': dataclasses.replace(
        _CLIPS.with_(
            toybox={'num_train': 120, 'num_val': 32, 'speed': 20.0, 'swing': 14.0}, clip_length=8, batch_size=32,
            lr=5e-4, steps=1500, warmup_steps=150, lr_half_life=500, seeds=5,
        ),
        name='movi_video',
    ),
    'dial': _DIAL,
    'dial_smoke': _smoke('dial_smoke', _DIAL, seeds=1),
    'movi_smoke': _smoke('movi_smoke', _CLIPS, train=2, val=2, eval_images=0, seeds=1),
}  # fmt: skip
"""``smoke`` seconds; ``toybox`` the embedded default, with the paper's decoder; ``toybox_category`` the same on tokens
that carry categories, deeper and longer; ``slotwise`` and ``slotwise_long`` an easier decoder; ``voc_toybox``,
``movi_toybox`` and ``clevr6_toybox`` the embedded stand-ins of the chapters
on these sets, with the easier decoder, too, and ``dial`` the tokens of the chapter on the dial, each with a ``_smoke``
of seconds, and ``movi_video`` clips of toys that leave and return, for models of clips;
``photos`` photographs in COCO's layout, some thousands, on a CPU (the page on them says which encoder's file it reads),
and ``photos_slotwise`` the same with the easier decoder;
``coco_short`` and ``voc_short`` the short recipe that many methods are compared by, ``coco_spot`` the first stage of
SPOT (the book's page on differences says what of both is not the same here); ``ade20k`` and ``cityscapes`` the paper's
settings with more slots, and of Cityscapes about ``voc``'s epochs, which nobody has tried: nothing was run with them;
the rest the released configurations of the paper. All but the embedded ones need the data and, in practice, a GPU."""


def preset(name: str, /, **changes: object) -> Config:
    """The preset of that name, with changes (see ``Config.with_``).

    Raises:
        ValueError: for an unknown preset, an unknown parameter or an impossible value.
    """
    if typed('preset', name, str) not in PRESETS:
        raise ValueError(f'unknown preset {reprlib.repr(name)}; known: {", ".join(PRESETS)}')
    return PRESETS[name].with_(**changes)
