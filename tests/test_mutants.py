"""The list of mutants is in step with the package: each can be applied, and names tests that there are."""

import ast

from tests.mutants import MUTANTS, ROOT


def test_every_mutant_can_be_applied_and_its_tests_exist():
    assert len(MUTANTS) >= 30
    assert len({mutant.what for mutant in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        text = (ROOT / 'topdown' / mutant.file).read_text()
        assert text.count(mutant.old) == 1, mutant
        ast.parse(text.replace(mutant.old, mutant.new))
        for name in mutant.tests.split():
            file, _, test = name.partition('::')
            tree = ast.parse((ROOT / 'tests' / file).read_text())
            assert not test or test in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], name
