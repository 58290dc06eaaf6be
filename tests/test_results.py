"""Tables: provenance, replacement, summaries, and that README and book show what the tables hold."""

from pathlib import Path

import pandas as pd
import pytest

from topdown import preset, results

ROOT = Path(__file__).parent.parent


def test_provenance_names_the_run():
    row = results.provenance(preset('toybox', seed=3), 12.34)
    assert row['preset'] == 'toybox'
    assert row['seed'] == 3
    assert row['seconds'] == 12.3
    assert row['config'] == preset('toybox').key
    assert all(str(value) for value in row.values())


def test_rows_are_appended_and_replaced(tmp_path):
    path = tmp_path / 'tables' / 'table.csv'
    results.append_rows(path, [{'model': 'a', 'seed': 0, 'x': 1.0}, {'model': 'a', 'seed': 1, 'x': 2.0}])
    table = results.append_rows(path, [{'model': 'a', 'seed': 1, 'x': 5.0}], same=('model', 'seed'))
    assert table.x.tolist() == [1.0, 5.0]
    pd.testing.assert_frame_equal(pd.read_csv(path), table)
    assert [p.name for p in path.parent.iterdir()] == ['table.csv']


def test_mean_and_spread():
    table = pd.DataFrame({'model': ['b', 'b', 'a'], 'fg_ari': [10.0, 20.0, 3.0]})
    shown = results.mean_and_spread(table)
    assert shown.index.tolist() == ['b', 'a']
    assert shown.fg_ari.tolist() == ['15.0 ± 7.1', '3.0']
    assert shown.runs.tolist() == [2, 1]


def test_publish_replaces_the_readme_table(tmp_path):
    run, figures, readme = tmp_path / 'runs' / 'toybox', tmp_path / 'figures', tmp_path / 'README.md'
    run.mkdir(parents=True)
    pd.DataFrame({'model': ['a'], 'masks': ['-'], 'fg_ari': [1.0]}).to_csv(run / 'results.csv', index=False)
    (run / 'masks.png').write_bytes(b'png')
    readme.write_text(f'before\n{results.BEGIN}\nold\n{results.END}\nafter\n')
    results.publish(run, figures, readme)
    assert readme.read_text() == (
        f'before\n{results.BEGIN}\n| model | masks | FG-ARI | runs |\n| --- | --- | --- | --- |\n'
        f'| a | - | 1.0 | 1 |\n{results.END}\nafter\n'
    )
    assert (figures / 'masks.png').read_bytes() == b'png'
    assert (figures / 'tables' / 'toybox.csv').exists()


def test_command_line_without_results(tmp_path, capsys):
    with pytest.raises(SystemExit):
        results.main([str(tmp_path)])
    assert 'results.csv is missing' in capsys.readouterr().err


def test_committed_tables_are_those_the_readers_see():
    table = pd.read_csv(ROOT / 'figures' / 'tables' / 'toybox.csv')
    summary = results.summary_table(table)
    shown = pd.read_csv(ROOT / 'figures' / 'tables' / 'toybox_summary.csv').astype(str)
    pd.testing.assert_frame_equal(summary.astype(str), shown, check_dtype=False)
    assert results.markdown(summary) in (ROOT / 'README.md').read_text()
    assert (table.dataset == 'toybox').all()
    trained = table[table.model.isin(['baseline', 'top-down'])]
    assert trained[['commit', 'config', 'torch', 'seconds']].notna().all(axis=None)
