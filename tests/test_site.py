"""The documentation builds without a warning, and what is built loads nothing from the network.

`make docs` makes the environment that this needs; elsewhere it is skipped.
"""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
OF_MAKE = ROOT / '.venv-docs' / 'bin' / 'python'
PYTHON = sys.executable if find_spec('mkdocs') else OF_MAKE
# What a browser loads by itself; a link to follow is none of it.
LOADS = ('src', 'srcset', 'data', 'poster')
LOADED_LINKS = {'stylesheet', 'icon', 'preload', 'prefetch', 'modulepreload', 'manifest'}
ELSEWHERE = re.compile(r'(\w+:)?//')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    if not Path(PYTHON).exists():
        pytest.skip('MkDocs is not installed: make docs')
    done = subprocess.run(
        [PYTHON, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', folder],
        cwd=ROOT,
        env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """Collect the addresses that a page loads, and what it is made of."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.components = [], set()
        self.in_style = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.in_style = tag == 'style'
        self.addresses += [attrs[name] for name in LOADS if attrs.get(name)]
        self.addresses += loaded_by_styles(attrs.get('style') or '')
        self.components.add(attrs.get('data-md-component'))
        self.components |= set((attrs.get('class') or '').split())
        if tag == 'link' and LOADED_LINKS & set((attrs.get('rel') or '').split()):
            self.addresses.append(attrs['href'])

    def handle_data(self, data):
        if self.in_style:
            self.addresses += loaded_by_styles(data)


def loaded_by_styles(text):
    return re.findall(r'(?:url\(|@import)\s*["\']?([^"\')\s;]+)', text)


def from_elsewhere(loaded):
    """What a page loads from another host; the theme's script asks for more where it is told to."""
    # GitHub for the stars of a repo_url, a CDN for Mermaid.
    asks = sorted(loaded.components & {'source', 'mermaid'})
    return [a for a in loaded.addresses if ELSEWHERE.match(a)] + asks


def test_no_page_loads_anything_from_the_network(site):
    pages = sorted(site.rglob('*.html'))
    assert len(pages) > 30
    for page in pages:
        loaded = Loaded(page.read_text('utf-8'))
        assert from_elsewhere(loaded) == [], page
        files = [a.partition('#')[0].partition('?')[0] for a in loaded.addresses]
        local = [f for f in files if f and not f.startswith('data:')]
        folder = site if page.name == '404.html' else page.parent
        assert [f for f in local if not (folder / f.lstrip('/')).exists()] == [], page
    for style in site.rglob('*.css'):
        assert [a for a in loaded_by_styles(style.read_text('utf-8')) if ELSEWHERE.match(a)] == []


@pytest.mark.parametrize(
    'html',
    [
        '<script src="https://a.b/c.js"></script>',
        '<script src="//a.b/c.js"></script>',
        '<link rel="preload stylesheet" href="https://a.b/c.css">',
        '<img src="https://a.b/c.png">',
        '<div style="background: url(https://a.b/c.png)"></div>',
        "<style>@import 'https://a.b/c.css';</style>",
        '<a data-md-component="source" href="https://github.com/a/b"></a>',
        '<pre class="mermaid"></pre>',
    ],
)
def test_what_would_be_loaded_is_noticed(html):
    assert len(from_elsewhere(Loaded(html))) == 1
    assert from_elsewhere(Loaded('<a href="https://a.b/"></a><img src="c.png">')) == []


def test_links_that_leave_the_documentation_lead_to_the_repository(site):
    text = (site / 'benchmarks.html').read_text('utf-8')
    assert 'href="https://github.com/mmsniper/mmsniper/blob/main/benchmarks/results/toy.md"' in text
    assert 'src="benchmarks/results/autofocus_toy.png"' in text
    for page in site.rglob('*.html'):
        links = re.findall(r'(?:href|src)="([^"]*)"', page.read_text('utf-8'))
        depth = len(page.relative_to(site).parts) - 1
        assert [link for link in links if link.startswith('../' * (depth + 1))] == [], page


@pytest.mark.parametrize('module', ['chips', 'datasets', 'models', 'engine', 'apis', 'convert'])
def test_every_public_class_and_function_is_in_the_api(site, module):
    text = (site / 'api' / f'{module}.html').read_text('utf-8')
    source = (ROOT / 'mmsniper' / module / '__init__.py').read_text('utf-8')
    listed = re.findall(r"'(\w+)'", source.partition('__all__')[2])
    names = [name for name in listed if not name.isupper()]  # few constants have a docstring
    assert names
    assert [name for name in names if f'id="mmsniper.{module}.{name}"' not in text] == []
    assert not re.search(r':(class|func|meth|mod|data):', text)


def test_every_page_is_in_the_menu():
    nav = yaml.safe_load(re.sub('^hooks.*', '', (ROOT / 'mkdocs.yml').read_text(), flags=re.M))[
        'nav'
    ]
    text = str(nav)
    pages = [str(page.relative_to(ROOT / 'docs')) for page in ROOT.glob('docs/**/*.md')]
    assert [page for page in pages if f"'{page}'" not in text] == []
