"""Which runs the experiments of the book ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from topdown.book.places import from_project
from topdown.config import RENAMED, Config, parse_object
from topdown.presets import VARIANTS, preset

EXPERIMENTS = (
    'main', 'search', 'ablation', 'codebook', 'categories', 'kinds', 'difficulty', 'decoders', 'dial', 'hints',
)  # fmt: skip


MAIN = ('baseline', 'top-down', 'six-iterations')


ABLATION = (
    *MAIN, 'channel only', 'spatial only', 'without shifting', 'without quantization', 'mlp predictor', 'two rounds',
    'three rounds', 'separate weights',
)  # fmt: skip


PARTS = (*ABLATION[:7], 'shuffled codes')
"""The models of the embedded ablation with the paper's decoder: the paper's rows, and a control."""


SIZES, PAPER_SIZES, EASY_SIZES = (8, 32, 64, 256, 1024), (128, 256, 512, 1024), (8, 16, 32, 64, 128, 256, 512, 1024)


CATEGORIES, CATEGORY_SIZES = (4, 8, 16), (8, 16, 32, 64, 128)


KINDS: dict[str, tuple[dict[str, object], float]] = {
    '4 categories': ({'toybox': {'categories': 4}}, 1),
    '8 categories': ({'toybox': {'categories': 8}}, 1),
    '16 categories': ({}, 1),
    '4 categories, Zipf': ({'toybox': {'categories': 4, 'zipf': 1.0}}, 1),
    '8 categories, Zipf': ({'toybox': {'categories': 8, 'zipf': 1.0}}, 1),
    '16 categories, Zipf': ({'toybox': {'zipf': 1.0}}, 1),
    '16 categories, no revival': ({}, 0),
    '16 categories, more revival': ({}, 3),
}
"""Settings of the experiment on what the number of codes follows: changes, and times the revival that goes with E."""
KINDS_SIZES = (8, 64, 512)


SETTINGS: dict[str, dict[str, object]] = {
    'as it is': {},
    'easy parts': {'toybox': {'dissimilarity': 0.0}},
    'cluttered': {'toybox': {'clutter': 2.0}},
    'many objects': {'toybox': {'min_objects': 7, 'max_objects': 10}, 'num_slots': 11},
    'few slots': {'num_slots': 4},
    'many slots': {'num_slots': 11},
    'tiny codebook': {'codebook_size': 2},
    'plain ground': {'toybox': {'background_contrast': 0.0}},
    'strong ground': {'toybox': {'background_contrast': 1.0}},
}
"""Settings of the experiment on difficulty, as changes to a Toybox preset."""


FEWER = ('as it is', 'easy parts', 'cluttered', 'many objects', 'few slots', 'tiny codebook')
"""Settings with the paper's decoder, whose runs take longer."""


DECODERS: dict[str, dict[str, object]] = {
    'autoregressive': {},
    'random orders': {'patch_order': 'random'},
    'self-trained': {'patch_order': 'random', 'teacher': 'random orders', 'teacher_weight': 0.005},
    'mlp': {'decoder': 'mlp'},
    'slotwise': {'decoder': 'slotwise'},
    'diffusion': {'decoder': 'diffusion'},
}
"""Settings of the experiment on decoders, as changes to the preset; a teacher is the model of the same kind and seed in
the setting named."""


LEVELS = (0.0, 0.2, 0.4, 0.6, 1.0)
"""Evidence of the experiment with the dial."""
BEST_LEVEL = 1.0
"""The level at which the pathway's gain was highest, FG-ARI and mBO averaged; decoders are compared there."""


CONTROLS = (*MAIN, 'without quantization', 'shuffled codes')


HINTED = (
    *MAIN, 'true categories', 'shuffled categories', 'short true categories', 'short shuffled categories',
)  # fmt: skip
"""The models of the experiment in which true categories take the place of codes."""


_FAST = {'lr': 2e-3, 'steps': 3000, 'warmup_steps': 300, 'lr_half_life': 1500}


SEARCH: dict[str, dict[str, object]] = {
    'as it is': {},
    'short and fast': {**_FAST},
    'short and fast, 30 % masked': {**_FAST, 'input_masking': 0.3},
    'one layer': {'decoder_layers': 1},
    'one layer, short and fast': {**_FAST, 'decoder_layers': 1},
    'one layer, short and fast, 30 % masked': {**_FAST, 'decoder_layers': 1, 'input_masking': 0.3},
    **{
        f'first encoder, {name}': {'encoder': 'vit_toybox_patch8_96', **changes}
        for name, changes in {
            'one layer, short': {**_FAST, 'lr': 1e-3, 'decoder_layers': 1},
            'two layers, short': {**_FAST, 'lr': 1e-3},
            'one layer, short, 70 % masked': {**_FAST, 'lr': 1e-3, 'decoder_layers': 1, 'input_masking': 0.7},
            'one layer, short and fast': {**_FAST, 'decoder_layers': 1},
            'one layer, short and fast, 10 % masked': {**_FAST, 'decoder_layers': 1, 'input_masking': 0.1},
            'one layer, short and fast, 30 % masked': {**_FAST, 'decoder_layers': 1, 'input_masking': 0.3},
            'one layer, short and faster': {**_FAST, 'lr': 4e-3, 'decoder_layers': 1},
            'one layer, fast, 40 % masked': {
                **_FAST, 'decoder_layers': 1, 'input_masking': 0.4, 'steps': 4000, 'lr_half_life': 2000,
            },
        }.items()
    },
}  # fmt: skip
"""The search for settings of the autoregressive decoder, with the baseline alone, as changes to the preset."""


SEEDS = {
    'search': range(10, 12), 'main': range(1, 6), 'ablation': range(5), 'codebook': range(3), 'categories': range(1),
    'kinds': range(3), 'difficulty': range(2), 'decoders': range(3), 'hints': range(5),
}  # fmt: skip
"""Seeds of every experiment on Toybox, those of the search in no other, and ``main`` without the one that was looked at
before; ``smoke`` gets one, and presets of other data as many as they say."""


@dataclass(frozen=True)
class Job:
    """One training run that an experiment asks for."""

    experiment: str
    variant: str
    seed: int
    changes: dict = field(default_factory=dict)
    """Changes to the preset beside the variant's, by their plain names."""
    setting: str = ''
    """What readers call the changes."""

    def __post_init__(self) -> None:
        if self.experiment not in EXPERIMENTS:
            raise ValueError(f'experiment must be one of {", ".join(EXPERIMENTS)}, got {self.experiment!r}')
        if self.variant not in VARIANTS:
            raise ValueError(f'variant must be one of {", ".join(VARIANTS)}, got {self.variant!r}')
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f'seed must be a whole number from 0, got {self.seed!r}')
        if not isinstance(self.changes, dict) or {'seed', 'data_root', 'token_dir'} & set(self.changes):
            raise ValueError(f'changes must name parameters other than seed, data_root, token_dir: {self.changes!r}')

    def config(self, preset_name: str, data_root: str = '', token_dir: str = '', steps: int = 0) -> Config:
        """The run's configuration.

        Args:
            preset_name: of the preset that is changed.
            data_root: folder of the data set; relative ones count from the project.
            token_dir: folder of the shared tokens, of presets that keep tokens.
            steps: of optimisation; 0 leaves them to the preset.

        Raises:
            ValueError: for an unknown preset or parameter, an impossible value, or a setting without effect.
        """
        values = {**VARIANTS[self.variant], **self.changes, 'seed': self.seed, 'data_root': from_project(data_root)}
        values |= {'steps': steps} if steps else {}
        values |= {'token_dir': from_project(token_dir)} if token_dir else {}
        first = {name: values.pop(name) for name in ('batch_size', 'dead_code_threshold') if name in values}
        return preset(preset_name, **first).with_(**values)  # a plan's threshold is its baselines', too, without effect


def parse_changes(text: str) -> dict[str, object]:
    """Changes from JSON, as a notebook's parameter or a row holds them; names of before are read, too.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    changes = parse_object(text, 'changes')
    return {RENAMED.get(name, name): value for name, value in changes.items()}


def revival(base: Config, slots: int, codebook_size: int) -> float:
    """``dead_code_threshold`` for other numbers of slots or codes: the same share of the average as the preset's.

    A code is hit batch * slots / codebook_size times a step on average. The preset's threshold is some share of that
    average, which is kept, so that changing the size of the codebook does not also change how readily codes are
    revived.
    """
    model = base.model
    return round(model.dead_code_threshold * (slots / model.num_slots) * (model.codebook_size / codebook_size), 6)


def seeds_of(base: Config, experiment: str) -> range:
    """The seeds of a preset's experiment."""
    if base.data.dataset != 'toybox' and (experiment not in ('hints', 'decoders') or base.seeds == 1):
        return range(base.seeds)
    return range(1) if base.name == 'smoke' else SEEDS[experiment]


# --------------------------------------------------------------------------------------------------------- plan


def plan(preset_name: str, only: Iterable[str] | None = None) -> list[Job]:
    """The runs that the experiments ask for, in the order of their tables.

    Toybox presets have the ablation, codebook sizes and difficulty, ``slotwise`` numbers of categories and what the
    number of codes follows, too, and ``toybox`` decoders; ``toybox_category`` has the search and the main table,
    presets with the dial have ``dial``, ``hints`` and decoders, ``photos_slotwise`` has the main table and decoders,
    ``coco`` the paper's main table, ablation and codebook sizes, and others have the main table.

    Args:
        preset_name: a preset.
        only: names of experiments; all that the preset has if None.

    Raises:
        ValueError: for an unknown preset or experiment, or one that the preset does not have.
    """
    base = preset(preset_name)
    by_preset = {
        'coco': ['main', 'ablation', 'codebook'], 'toybox_category': ['search', 'main'],
        'slotwise': ['ablation', 'codebook', 'categories', 'kinds', 'difficulty'],
        'toybox': ['ablation', 'codebook', 'difficulty', 'decoders'], 'photos_slotwise': ['main', 'decoders'],
    }  # fmt: skip
    by_data = {'toybox': ['ablation', 'codebook', 'difficulty'], 'toybox_dial': ['dial', 'hints', 'decoders']}
    known = by_preset.get(preset_name) or by_data.get(base.data.dataset) or ['main']
    chosen = list(known if only is None else only)
    for name in chosen:
        if name not in known:
            raise ValueError(f'preset {preset_name!r} has no experiment {name!r}; it has {", ".join(known)}')
    jobs = []
    for name in known:
        if name in chosen:
            cases = list(_cases(name, base))
            jobs += [
                Job(name, variant, seed, _complete(base, changes), setting)
                for variant, changes, setting in cases
                for seed in seeds_of(base, name)
            ]
    return jobs


def _cases(name: str, base: Config) -> Iterator[tuple[str, dict[str, object], str]]:
    """Variant, changes and setting of every case of an experiment."""
    toybox, easy = base.data.dataset == 'toybox', base.model.decoder == 'slotwise'
    if name in ('main', 'ablation'):
        main = (*MAIN, 'in time') if base.model.clip_length > 1 else MAIN
        for variant in main if name == 'main' else PARTS if toybox and not easy else ABLATION:
            yield variant, {}, ''
    elif name == 'search':
        for setting, changes in SEARCH.items():
            yield 'baseline', changes, setting
    elif name == 'codebook':
        for size in EASY_SIZES if easy else SIZES if toybox else PAPER_SIZES:
            yield 'top-down', {'codebook_size': size}, f'E = {size}'
    elif name == 'categories':
        for count in CATEGORIES:
            known = {} if count == 16 else {'toybox': {'categories': count}}
            for size in CATEGORY_SIZES:
                yield 'top-down', {'codebook_size': size, **known}, f'{count} categories, E = {size}'
    elif name == 'kinds':
        for setting, (changes, times) in KINDS.items():
            for size in KINDS_SIZES:
                threshold = round(times * revival(base, base.model.num_slots, size), 6)
                sizes = {'codebook_size': size, 'dead_code_threshold': threshold}
                yield 'top-down', {**sizes, **changes}, f'{setting}, E = {size}'
    elif name == 'decoders':
        place = {'evidence': BEST_LEVEL} if base.data.dataset == 'toybox_dial' else {}
        few = ('autoregressive', 'slotwise', 'diffusion') if place else ('slotwise', 'diffusion')
        for setting in DECODERS if toybox else few:
            for variant in MAIN:
                changes = {**place, **DECODERS[setting]}
                if 'teacher' in changes:
                    changes['teacher'] = _teacher(base, variant, changes['teacher'])
                yield variant, changes, setting
    elif name == 'dial':
        for level in LEVELS:
            for variant in CONTROLS:
                yield variant, {'evidence': level}, f'evidence {level:g}'
    elif name == 'hints':
        for variant in HINTED:
            yield variant, {'evidence': 1.0, 'hint_channels': 16}, ''
    else:
        for setting in SETTINGS if easy else FEWER:
            for variant in ('baseline', 'top-down')[setting == 'tiny codebook' :]:
                yield variant, SETTINGS[setting], setting


def _teacher(base: Config, variant: str, setting: str) -> str:
    """Where the trained models of a variant in one of ``DECODERS`` are, for ``TrainConfig.teacher``."""
    key = Job('decoders', variant, 0, DECODERS[setting]).config(base.name).key
    return f'runs/{base.name}/jobs/{key}-seed{{seed}}/checkpoint.safetensors'


def _complete(base: Config, changes: dict[str, object]) -> dict[str, object]:
    """Changes with the revival threshold scaled."""
    sizes = {name: changes.get(name, getattr(base.model, name)) for name in ('num_slots', 'codebook_size')}
    if not set(sizes) & set(changes):
        return changes
    return {'dead_code_threshold': revival(base, *sizes.values()), **changes}
