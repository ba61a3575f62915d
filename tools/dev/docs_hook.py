"""What MkDocs does not know of our pages, which are read on GitHub as well (see mkdocs.yml).

- A link that leaves docs/ leads to the repository: a page of the site has no ../configs beside it.
- An image that is kept elsewhere (benchmarks/results) comes along, so that nothing is loaded from
  the network.
- Each package with public names gets a page of the API, made of its docstrings.
- Docstrings are Google's, as MMDetection's are, with Sphinx's roles and `Example:`.
"""

from __future__ import annotations

import configparser
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ('.png', '.jpg')
LINK = re.compile(r'(?<=\]\()(?:\.\./)+[^)#\s]+')
# An entry of several names, `width, height (int): ...`, with its further lines.
GROUP = re.compile(r'^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+)((?: \(.*\))?:.*(?:\n\1 +\S.*)*)', re.M)
ROLE = re.compile(r':\w+:`(~?)([\w.]+)`')


def repository() -> str:
    """The address in setup.cfg, the one place where it is."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg', encoding='utf-8')
    return config['metadata']['url']


def outside_target(page: str, link: str) -> str | None:
    """The path in the repository that a link leads to, None if that is in docs/.

    Args:
        page (str): The page that has the link, relative to docs/.
        link (str): The link, relative to the page.
    """
    target = posixpath.normpath(posixpath.join('docs', posixpath.dirname(page), link))
    return None if target.startswith('docs/') else target


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            target = outside_target(page.src_uri, link)
            if target and target.endswith(IMAGES) and target not in files.src_uris:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    for item in config.nav:
        for title, path in [pair for part in item.get('API', []) for pair in part.items()]:
            text = f'# {title}\n\n::: {title}\n'
            files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def absolute(match: re.Match) -> str:
        target = outside_target(page.file.src_uri, match[0])
        if target is None:
            return match[0]
        if target.endswith(IMAGES):
            return posixpath.relpath(target, posixpath.dirname(page.file.src_uri))
        kind = 'tree' if (ROOT / target).is_dir() else 'blob'
        return f'{repository()}/{kind}/main/{target}'

    return LINK.sub(absolute, markdown).replace(' ± ', '\u00a0±\u00a0')  # numbers of a line


class Docstrings(griffe.Extension):
    """Docstrings as griffe's parser knows them.

    An entry of several names becomes one for each, a role becomes a link where there is a page.
    """

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        def link(match: re.Match) -> str:
            tilde, name = match.groups()
            shown = name.rpartition('.')[2] if tilde else name
            return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'

        def split(match: re.Match) -> str:
            indent, names, rest = match.groups()
            return '\n'.join(f'{indent}{name}{rest}' for name in names.split(', '))

        if obj.docstring:
            text = re.sub(r'^( *)Example:$', r'\1Examples:', obj.docstring.value, flags=re.M)
            obj.docstring.value = GROUP.sub(split, ROLE.sub(link, text))
