"""Faults put into the package one by one, each of which the tests named beside it must notice: ``make mutants``.

Every mutant is a line or two of a file replaced in a copy of the project. The tests of all mutants must pass in that
copy first, and those of a mutant must then fail in it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.reliability import MUTANTS as TRIED
from tests.reliability import write_rows

ROOT = Path(__file__).parent.parent
LIMIT = 300  # seconds for the tests of one mutant
LIBRARIES = (  # imported once, for all mutants
    'hypothesis', 'matplotlib.pyplot', 'pandas', 'pycocotools.coco', 'scipy.stats', 'seaborn', 'sklearn.metrics',
    'timm', 'torch', 'vector_quantize_pytorch',
)  # fmt: skip
FAILED = 1  # pytest's status for tests that failed, as against none found or a file that cannot be imported


class Mutant(NamedTuple):
    """One fault."""

    what: str
    file: str  # below topdown/
    old: str  # stands there once
    new: str
    tests: str  # below tests/, several separated by blanks


MUTANTS = [
    # ---------------------------------------------------------------------------------------------- slot attention
    Mutant('logits scaled by the whole width', 'model/slot_attention.py', 'self.head_size**-0.5', 'self.qkv_size**-0.5',
           'test_slots.py::test_equals_reference'),
    Mutant('patches compete, not slots', 'model/slot_attention.py', '.flatten(1, 2).softmax(dim=1)',
           '.flatten(1, 2).softmax(dim=2)', 'test_slots.py::test_equals_reference'),
    Mutant('weighted sum instead of mean', 'model/slot_attention.py', 'weights / weights.sum(dim=-1, keepdim=True)',
           'weights / 1', 'test_slots.py::test_equals_reference'),
    Mutant('spatial scale left out', 'model/slot_attention.py', 'weights * scales.spatial.unsqueeze(1)', 'weights',
           'test_slots.py::test_equals_reference'),
    Mutant('channel scale added', 'model/slot_attention.py', 'updates * scales.channel', 'updates + scales.channel',
           'test_slots.py::test_equals_reference'),
    Mutant('scale of hidden units left out', 'model/slot_attention.py', 'hidden * scales.mlp', 'hidden',
           'test_slots.py::test_equals_reference'),
    Mutant('attention summed over heads', 'model/slot_attention.py', 'attention.mean(dim=1)', 'attention.sum(dim=1)',
           'test_slots.py::test_attention_shares_out_every_patch_and_slots_are_exchangeable'),
    # -------------------------------------------------------------------------------------------------- modulation
    Mutant('spatial scale centred at zero', 'model/modulation.py', 'spatial = 1 + attention_BKN -',
           'spatial = attention_BKN -', 'test_slots.py::test_shifted_scale_has_mean_one'),
    Mutant('mean over slots', 'model/modulation.py', 'attention_BKN.mean(dim=-1', 'attention_BKN.mean(dim=-2',
           'test_slots.py::test_shifted_scale_has_mean_one'),
    Mutant('wider predictor', 'model/modulation.py', 'slot_size // 4', 'slot_size // 2',
           'test_slots.py::test_scales_by_code_equal_hand_formulas'),
    Mutant('queries scaled by the channel predictor', 'model/modulation.py', 'else self.query(codes_BKd)',
           'else self.channel(codes_BKd)', 'test_slots.py::test_scales_by_code_equal_hand_formulas'),
    # ---------------------------------------------------------------------------------------------------- codebook
    Mutant('decay the wrong way round', 'model/codebook.py', 'self.code_sum.lerp_(sums, 1 - self.ema_decay)',
           'self.code_sum.lerp_(sums, self.ema_decay)', 'test_codebook.py::test_equals_reference'),
    Mutant('farthest code', 'model/codebook.py', 'distance.argmin(dim=1)', 'distance.argmax(dim=1)',
           'test_codebook.py::test_equals_reference'),
    Mutant('no gradient through codes', 'model/codebook.py', 'codes = x + (nearest - x).detach()', 'codes = nearest',
           'test_codebook.py::test_gradient_passes_straight_through'),
    Mutant('commitment without gradient', 'model/codebook.py', 'F.mse_loss(x.to(nearest.dtype), nearest)',
           'F.mse_loss(x.detach().to(nearest.dtype), nearest)',
           'test_codebook.py::test_commitment_pulls_the_input_only'),
    Mutant('living codes revived', 'model/codebook.py', 'self.cluster_size < self.dead_code_threshold',
           'self.cluster_size > self.dead_code_threshold',
           'test_codebook.py::test_dead_codes_are_revived_from_the_batch'),
    Mutant('codebook follows validation images', 'model/codebook.py', '''            if self.training:
                self.update(''', '''            if True:
                self.update(''', 'test_codebook.py::test_evaluation_changes_nothing'),
    Mutant('sums of slots without an order', 'model/codebook.py', "if vectors.device.type == 'cpu':", 'if True:',
           'test_gpu_path.py::test_sums_of_slots_are_a_product_on_a_gpu'),
    Mutant('state in bfloat16', 'precision.py', "if device.type == 'cuda' else contextlib", 'if False else contextlib',
           'test_gpu_path.py::test_state_and_softmax_are_float32_on_a_gpu'),
    Mutant('codes counted for ever', 'train/health.py', 'step // epoch != before', 'False and step // epoch != before',
           'test_health.py::test_codes_are_counted_over_the_epoch'),
    Mutant('perplexity in bits', 'model/codebook.py', 'return torch.exp(-', 'return torch.exp2(-',
           'test_codebook.py::test_perplexity_counts_codes_in_use'),
    # ------------------------------------------------------------------------------------------ decoders and model
    Mutant('decoder sees the token it predicts', 'model/decoders.py', "'-inf')).triu(1)", "'-inf')).triu(2)",
           'test_decoders.py::test_equals_torch_transformer'),
    Mutant('masks of the wrong layer', 'model/decoders.py', 'i == len(self.layers) - 1', 'i == 0',
           'test_decoders.py::test_equals_torch_transformer'),
    Mutant('inputs masked in evaluation', 'model/decoders.py', 'hidden_BN is None and self.training and',
           'hidden_BN is None and', 'test_decoders.py::test_input_masking_is_random_in_training_only'),
    Mutant('noise left out', 'model/diffusion.py', ' + sigma * noise_BND', '',
           'test_decoders.py::test_diffusion_decoder_equals_the_naive_one'),
    Mutant('noisy tokens not scaled down', 'model/diffusion.py', 'self.project_input(alpha * noisy)',
           'self.project_input(noisy)',
           'test_decoders.py::test_noisy_tokens_have_variance_one_and_the_network_sees_the_best_linear_guess'),
    Mutant('diffusion sees earlier patches only', 'model/diffusion.py', 'causal=False', 'causal=True',
           'test_decoders.py::test_every_patch_sees_every_other_and_at_the_end_none'),
    Mutant('times drawn in evaluation', 'model/diffusion.py', 'clean.new_full((batch,), EVALUATED_AT)',
           'torch.rand(batch)',
           'test_decoders.py::test_evaluation_draws_nothing_and_gives_an_image_the_same_masks_wherever_it_stands'),
    Mutant('second pass starts where the first ended', 'model/slot_model.py',
           "again(start, keys, values, found['scales'])",
           "again(slots, keys, values, found['scales'])",
           'test_model.py::test_both_passes_start_alike_and_the_pathway_can_be_recomputed'),
    Mutant('commitment without weight', 'model/slot_model.py', 'config.commitment_weight * commitment', 'commitment',
           'test_deviations.py::test_ten_optimiser_steps_equal_the_naive_model'),
    Mutant('scales from slots instead of codes', 'model/slot_model.py', 'shuffle_codes else codes,',
           'shuffle_codes else slots,',
           'test_model.py::test_both_passes_start_alike_and_the_pathway_can_be_recomputed'),
    Mutant('codes of other images', 'model/slot_model.py', 'codes.roll(1, 1)', 'codes.roll(1, 0)',
           'test_dial.py::test_shuffled_codes_are_those_of_other_slots'),
    Mutant('a degree of freedom too many', 'evaluate/statistics.py', '/ 2, count - 1)', '/ 2, count)',
           'test_statistics.py::test_the_smallest_difference_is_seen_as_often_as_asked'),
    Mutant('positions from -1', 'model/pixels.py', 'torch.linspace(0, 1, side)', 'torch.linspace(-1, 1, side)',
           'test_pixels.py::test_position_equals_the_hand_formula'),
    Mutant('opacities over pixels', 'model/pixels.py', 'drawn[..., 3].softmax(dim=1)', 'drawn[..., 3].softmax(dim=2)',
           'test_pixels.py::test_decoder_equals_a_naive_one'),
    Mutant('images not centred', 'model/encoder.py', '(images - self.mean) / self.std\n        with',
           'images / self.std\n        with', 'test_encoder.py::test_shipped_encoders'),
    Mutant('block counted from 0', 'model/encoder.py', 'indices=[block - 1 for', 'indices=[block - 2 for',
           'test_encoder.py::test_block_and_norm_are_what_they_say'),
    Mutant('joined blocks not in the fingerprint', 'model/encoder.py', 'if config.layers else config.layer',
           'if False else config.layer', 'test_encoders.py::test_several_blocks_are_joined'),
    Mutant('weights that the model has not', 'model/encoder.py', 'sorted(shapes.keys() - own.keys())', '()',
           'test_encoders.py::test_another_models_weights_are_refused'),
    # -------------------------------------------------------------------------------------------------- evaluation
    Mutant('union counts the overlap twice', 'evaluate/metrics.py', 'joint.sum(1, keepdim=True) - joint',
           'joint.sum(1, keepdim=True)', 'test_metrics.py::test_everything_equals_brute_force'),
    Mutant('FG-ARI with the background', 'evaluate/metrics.py', 'adjusted_rand_index(joint[:, 1:])',
           'adjusted_rand_index(joint)', 'test_metrics.py::test_ari_equals_scikit_learn'),
    Mutant('recall above a half only', 'evaluate/metrics.py', 'amax(2) >= 0.5', 'amax(2) > 0.5',
           'test_metrics.py::test_everything_equals_brute_force'),
    Mutant('overlaps belong to the first object', 'evaluate/metrics.py', 'labels[count > 1] = IGNORE',
           'labels[count > 9] = IGNORE',
           'test_metrics.py::test_overlaps_of_instances_and_of_classes_by_protocol'),
    Mutant('spot as oclf', 'evaluate/metrics.py', "class_overlap != 'highest'", "class_overlap == 'never'",
           'test_metrics.py::test_class_maps_equal_brute_force'),
    Mutant('pixels of no segment leave unions', 'evaluate/metrics.py', "left if aside == 'unlabelled' else 0.0", '0.0',
           'test_protocols.py::test_bench_equals_the_slow_evaluator'),
    Mutant('overlaps without a segment of their own', 'evaluate/metrics.py', 'merged[:, 0, -1] = left.sum((1, 2))',
           'merged[:, 0] += F.pad(left[:, 0], (0, 1))',
           'test_protocols.py::test_slotdiffusion_equals_the_slow_evaluator'),
    Mutant('erased objects are never counted', 'evaluate/metrics.py', 'there.sum(1) + truth.erased[:, over]',
           'there.sum(1)', 'test_protocols.py::test_objects_erased_by_overlap'),
    Mutant('the first object stays one', 'evaluate/metrics.py', 'if len(present) and present[0] > 0:', 'if False:',
           'test_protocols.py::test_no_background_pixel'),
    Mutant('instances for panoptic things', 'evaluate/truth.py', '(rules.panoptic and dataset.panoptic(i)) or truth',
           'truth', 'test_protocols.py::test_truth_of_bench_on_coco_is_panoptic'),
    Mutant('normal instead of Student', 'evaluate/statistics.py',
           'half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)', 'half = float(stats.norm.ppf((1 + level) / 2)',
           'test_statistics.py::test_seed_interval_is_students'),
    Mutant('noise of its own for every batch', 'evaluate/predict.py', 'torch.Generator().manual_seed(seed))',
           'None)', 'test_train.py::test_predictions_come_from_the_masks_asked_for'),
    # ---------------------------------------------------------------------------------------------------- training
    Mutant('seed not compared on resume', 'config.py', "'log_every'} - {'seed'}", "'log_every'}", 'test_resume.py'),
    Mutant('settings not compared on resume', 'config.py', 'if here != there and', 'if here is None and',
           'test_resume.py'),
    Mutant('encoder not compared on resume', 'train/loop.py', 'if saved.encoder_fingerprint != fingerprint:',
           'if False:', 'test_resume.py'),
    Mutant('encoder not compared on loading', 'train/loop.py', 'encoder.fingerprint() != saved.encoder_fingerprint',
           'False', 'test_resume.py'),
    Mutant('tensors not compared with the header', 'train/checkpoint.py', '        _check_tensors(saved)\n', '',
           'test_reliable.py::test_headers_that_do_not_fit_have_one_message'),
    Mutant('rows of other data are gathered', 'book/runs.py', "if row['data'] != known[place]:", 'if False:',
           'test_reliable.py::test_rows_of_other_data_are_not_gathered'),
    Mutant('optimizer not resumed', 'train/loop.py', 'saved.load_optimizer(model, optimizer)', 'pass',
           'test_train.py::test_resuming_gives_the_same_run_bit_for_bit'),
    Mutant('random state not resumed', 'train/loop.py', 'saved.load_random_state()', 'pass',
           'test_train.py::test_resuming_gives_the_same_run_bit_for_bit'),
    Mutant('learning rate never halved', 'train/loop.py', '0.5 ** (step / config.lr_half_life)', '1.0',
           'test_train.py::test_learning_rate_schedule'),
    Mutant('every epoch in one order', 'train/batches.py', '_generator(seed, 1, epoch)', '_generator(seed, 1, 0)',
           'test_data.py::test_an_epoch_shows_every_image_once_in_the_published_order'),
    Mutant('all processes take the whole batch', 'distributed.py', 'slice(rank() * count // world(),',
           'slice(0,', 'test_distributed.py::test_shares_cover_everything_once'),
    # ---------------------------------------------------------------------------------------- settings, files, data
    Mutant('learning rate decides nothing', 'config.py', "UNDECIDING = (", "UNDECIDING = ('lr', ",
           'test_config.py::test_key_ignores_what_decides_nothing_and_nothing_else'),
    Mutant('True passes as a number', 'config.py', ' and not (kind is int and isinstance(value, bool))', '',
           'test_config.py::test_wrong_parameters_are_refused'),
    Mutant('bfloat16 on every GPU', 'precision.py', 'fast = major >= 8', 'fast = major >= 7',
           'test_precision.py::test_gpus_from_ampere_on_compute_bfloat16'),
    Mutant('what failed stays behind', 'files.py', 'temporary.unlink(missing_ok=True)', 'pass',
           'test_files.py::test_what_fails_leaves_the_old_file_and_nothing_else'),
    Mutant('centre crop from the corner', 'data/base.py', 'top, left = _centre(image.shape[-2:], size, resize)',
           'top, left = 0, 0', 'test_data.py::test_crop_position'),
    Mutant('names of lists lead anywhere', 'data/labels.py', '[inside(name) for name', '[name for name',
           'test_labels.py::test_lists_do_not_lead_out_of_the_folder'),
    Mutant('images of formats that start programs', 'data/base.py', 'Image.open(file, formats=formats)',
           'Image.open(file)', 'test_fuzz.py::test_formats_that_start_programs_are_not_opened'),
    Mutant('crowd regions are objects', 'data/coco.py', 'np.array([o.crowd for o in found], bool)',
           'np.array([False for o in found], bool)', 'test_data.py::test_reader_decodes_every_annotation_format'),
    Mutant('held-out images in training', 'data/own.py', "(name in held) == (split == 'val')",
           "name in held or split == 'train'",
           'test_own.py::test_images_are_found_at_any_depth_and_parted_by_a_hash_of_their_paths'),
    Mutant('rows and columns of tokens exchanged', 'data/own.py', 'permute(2, 0, 1)', 'permute(2, 1, 0)',
           'test_own.py::test_a_set_of_tokens_is_checked_and_keeps_files_on_the_disk'),
    Mutant('numbers in tokens not looked at', 'data/own.py', 'if not np.isfinite(tokens).all()', 'if False',
           'test_own.py::test_files_that_hold_no_tokens_are_named'),
    Mutant('images without labels scored', 'evaluate/predict.py', 'if not data.dataset.labelled', 'if False',
           'test_own.py::test_a_chapter_keeps_masks_and_leaves_metrics_out'),
    Mutant('images without labels evaluated', 'train/loop.py', 'if not scored:', 'if False:',
           'test_own.py::test_training_goes_on_without_evaluations_and_says_so'),
    Mutant('training scenes in validation', 'toybox/scenes.py', "{'train': 0, 'val': 1,", "{'train': 0, 'val': 0,",
           'test_data.py::test_toybox_is_deterministic_and_splits_differ'),
    Mutant('no difference is told from zero', 'book/tables.py', 'return int(low > 0) - int(high < 0)',
           'return int(low > 0) + int(high < 0)',
           'test_tables.py::test_an_effect_has_a_sign_only_if_its_interval_excludes_zero'),
    Mutant('smallest codebook that is in use', 'book/codebook_size.py', 'int(enough.max() if', 'int(enough.min() if',
           'test_codebook_size.py::test_the_largest_size_that_is_mostly_in_use'),
]  # fmt: skip


def run(tree: Path, tests: set[str]) -> tuple[int | None, str]:
    """Status and output of pytest in a copy of the project; the status is None if it did not end in time."""
    said = tree / 'output.txt'
    child = multiprocessing.get_context('fork').Process(target=_pytest, args=(tree, sorted(tests), said))
    child.start()
    child.join(LIMIT * len(tests))
    if child.is_alive():
        child.kill()
        return None, 'did not end in time'
    return child.exitcode, said.read_text()[-3000:]


def _pytest(tree: Path, tests: list[str], said: Path) -> None:
    """In a process that has the libraries already, which take longer to import than most tests to run."""
    for name in [name for name in sys.modules if name.split('.')[0] in ('tests', 'topdown')]:
        del sys.modules[name]
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ['PYTHONPATH'] = str(tree)
    sys.dont_write_bytecode = True  # a mutant of the same second and size would be taken for the one before it
    with said.open('w') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    options = ['-q', '-x', '-p', 'no:cacheprovider', '--hypothesis-profile=no_shrinking']
    status = pytest.main([*options, *(f'tests/{name}' for name in tests)])
    sys.stdout.flush()
    os._exit(int(status))


def copy(tree: Path) -> None:
    """What the tests need of the project."""
    for name in ('topdown', 'tests', 'figures', 'book'):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, tree / name)


def main() -> int:
    """Try all mutants, or those whose description holds one of the words given; 1 if one survives."""
    words = sys.argv[1:]
    chosen = [m for m in MUTANTS if not words or any(word in m.what for word in words)]
    problems = 0
    for name in LIBRARIES:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix='mutants-') as folder:
        tree = Path(folder)
        copy(tree)
        status, said = run(tree, {name for m in chosen for name in m.tests.split()})
        if status:
            print(f'the tests fail without any mutant (status {status}):\n{said}')
            return 1
        for mutant in chosen:
            path = tree / 'topdown' / mutant.file
            text = path.read_text()
            assert text.count(mutant.old) == 1, f'{mutant.what}: stands {text.count(mutant.old)} times in {mutant.file}'
            path.write_text(text.replace(mutant.old, mutant.new))
            began = time.monotonic()
            status, said = run(tree, set(mutant.tests.split()))
            path.write_text(text)
            verdict = {FAILED: 'caught', 0: 'SURVIVED'}.get(status, f'NOT TRIED (status {status})\n{said}')
            problems += status != FAILED
            print(f'{mutant.file:24} {mutant.what:45} {time.monotonic() - began:4.0f} s  {verdict}', flush=True)
    print(f'{len(chosen)} mutants tried, {problems} survived or could not be tried')
    if chosen == MUTANTS:
        caught = len(chosen) - problems
        how = 'a fault of a line or two; survived: the tests named beside it fail'
        write_rows(
            TRIED, [{'what': 'faults put into the package', 'tried': len(chosen), 'survived': caught, 'how': how}]
        )
    return int(problems > 0)


if __name__ == '__main__':
    sys.exit(main())
