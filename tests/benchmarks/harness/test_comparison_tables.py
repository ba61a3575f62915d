"""What a comparison's tables say: a row for each test, what mining costs, paired differences."""

import pytest

from harness.comparison import mean, sample_std
from harness.comparison_tables import COLUMNS, costs, differences, full_table, markdown, table_rows
from harness.training_run import METRICS

TRAIN = dict(train_pixels=3e6, train_seconds=60.0, train_cpu_seconds=30.0)


def contestant(name, *aps, train=TRAIN, tests=('test',), **more):
    """A contestant whose seeds 0, 1, ... have these APs; other metrics are a tenth more."""

    def result(ap):
        return {**dict.fromkeys(METRICS, ap + 0.1), 'AP': ap, **more}

    runs = [
        dict(seed=seed, train=train, **{stage: result(ap) for stage in tests})
        for seed, ap in enumerate(aps)
    ]
    costs_told = [key for key in train if key != 'device']
    statistics = {
        statistic: {
            stage: {
                key: of(run[stage][key] for run in runs)
                for key in (costs_told if stage == 'train' else result(0.0))
            }
            for stage in ('train', *tests)
        }
        for statistic, of in (('mean', mean), ('std', sample_std))
    }
    told = dict(test='one scale', tta='multi-scale --tta')
    return dict(name=name, tests=told, epochs=3, runs=runs, **statistics)


def summary(*contestants, seeds=(0, 1)):
    return dict(
        description='Told.', pixels=3e6, threads=1, seeds=list(seeds), contestants=contestants
    )


def test_there_is_a_row_for_each_test():
    rows = table_rows(summary(contestant('a', 0.4, 0.6, tests=('test', 'tta')), contestant('b')))
    assert [row[:3] for row in rows] == [['a', 'one scale', '3'], ['a', 'multi-scale --tta', '3']]
    for name, cell in {
        'AP': '0.500 ± 0.141',
        'minutes': '1.0',
        'CPU minutes': '0.5',
        'training Mpx': '3.0',
    }.items():
        assert rows[1][COLUMNS.index(name)] == cell


def test_minutes_of_a_gpu_say_so():
    (row,) = table_rows(summary(contestant('a', 0.4, train=dict(TRAIN, device='NVIDIA A1'))))
    assert row[COLUMNS.index('CPU minutes')] == '0.5 (NVIDIA A1)'


def test_sizes_without_objects_have_no_number():
    (row,) = table_rows(summary(contestant('a', 0.4, APl=None)))
    assert row[COLUMNS.index('AP large')] == '-'
    assert row[COLUMNS.index('AP small')] == '0.500'


def test_mining_is_a_cost():
    train = dict(TRAIN, mining_pixels=9e6, mining_cpu_seconds=12.0)
    assert costs(train) == dict(
        train_pixels=3e6, mining_pixels=9e6, pixels=6e6, seconds=60.0, cpu_seconds=42.0
    )
    assert costs(TRAIN)['pixels'] == 3e6
    both = summary(contestant('mines', 0.5, train=train), contestant('does not', 0.4))
    head, mines, does_not = full_table(both)
    assert (mines[head.index('mined Mpx')], does_not[head.index('mined Mpx')]) == ('9.0', '0.0')
    assert mines[head.index('CPU minutes')] == '0.7'
    assert len(head) == len(mines) == len(does_not)
    assert 'mined Mpx' not in full_table(summary(contestant('a', 0.4)))[0]


def test_false_positives_have_a_column_where_all_have_them():
    wrong = {'FP@0.5': 2.25, 'FP@0.9': None}
    head, a, b = full_table(summary(contestant('a', 0.5, **wrong), contestant('b', 0.4, **wrong)))
    assert head[-2:] == ['FP at recall 0.5', 'at 0.9']
    assert a[-2:] == b[-2:] == ['2.2', '-']
    assert full_table(summary(contestant('a', 0.5, **wrong), contestant('b', 0.4)))[0] == [*COLUMNS]


def test_differences_are_taken_seed_by_seed():
    first, second = contestant('a', 0.5, 0.9), contestant('b', 0.4, 0.6)
    (item,) = differences(summary(first, second, contestant('one seed', 0.1)))
    assert (item['name'], item['seeds']) == ('b', [0, 1])
    assert item['mean']['AP'] == pytest.approx(0.2)
    assert item['std']['AP'] == pytest.approx(0.2 / 2**0.5)
    assert item['mean']['FP@0.5'] is None


def test_the_page_has_the_tables_of_all_parts():
    several = summary(contestant('a', 0.5, 0.9), contestant('b', 0.4, 0.6))
    page = markdown(several, 'Title', 'python x.py')
    assert page.startswith('# Title\n\nTold.')
    assert '| a - b | 2 | 0.200 ± 0.141 | 0.200 ± 0.141 | 0.200 ± 0.141 | - |' in page.splitlines()

    one = dict(summary(contestant('a', 0.3), seeds=(0,)), pixels=9e6)
    page = markdown(dict(description='Told.', parts=[several, one]), 'Title', 'python x.py')
    for line in (
        '## 3 million training pixels, seeds 0, 1',
        '## 9 million training pixels, seed 0',
    ):
        assert line in page.splitlines()
    assert page.count('Differences, seed by seed') == 1
