"""docs/converted.md says of MMDetection's configs what the converter does."""

import re

import mmdet
import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def lister(load_tool):
    MMLogger.get_current_instance().setLevel('ERROR')
    return load_tool('dev/list_converted')


def refused_on_the_page(text):
    """Reason of each config."""
    rows = re.findall(r'^\| \d+ \| (.*) \| (.*) \|$', text, flags=re.M)
    return {name: reason for reason, names in rows for name in re.findall(r'`(.+?)`', names)}


def test_the_page_is_true_of_every_25th_config(lister):
    text = lister.PAGE.read_text('utf-8')
    if f'MMDetection {mmdet.__version__} ' not in text:
        pytest.skip('the page is about another version of MMDetection')
    refused = refused_on_the_page(text)
    names = list(lister.stock_configs())
    assert len(names) > 700
    assert set(refused) < set(names)
    for name in names[::25]:
        reason = lister.refusal(name)
        if reason and (reason == lister._NO_DETECTOR or reason.startswith(lister._UNREADABLE)):
            assert name not in refused
        else:
            assert refused.get(name, '') == lister._cell(reason), name


def test_the_page_counts_what_converts_and_gives_reasons_once(lister):
    reasons = {
        'a/one': '',
        'a/two': 'Mine, which is | odd',
        'b/three': 'Mine, which is | odd',
        'common/four': lister._NO_DETECTOR,
        'c/five': f'{lister._UNREADABLE}: it needs mmpretrain',
    }
    text = lister.page(reasons)
    assert f'Of the 3 configs of MMDetection {mmdet.__version__} ' in text
    assert '**1 become their SNIPER version**' in text
    assert '| a (2) | 1 |' in text
    assert '| b (1) | none |' in text
    assert r'| 2 | Mine, which is \| odd | `a/two`, `b/three` |' in text
    assert '1 more could not be read' in text
    assert 'four' not in text
    assert refused_on_the_page(text) == dict.fromkeys(
        ['a/two', 'b/three'], r'Mine, which is \| odd'
    )
