"""Which wheels of mmcv OpenMMLab has built, and for which torch.

They are listed on a page for each torch and each device, in OpenMMLab's public index. Only the
standard library is used, as in setup_venv.py.
"""

from __future__ import annotations

import platform
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import unquote, urlparse

INDEX = 'https://download.openmmlab.com/mmcv/dist'
# What it is asked for, the newest first. mmcv below 2.2 has no wheels for an older or a newer one.
TORCH = [(2, minor) for minor in range(13, -1, -1)]
CUDA = 'cu121', 'cu118', 'cu117'
SECONDS_TO_WAIT = 10


class IndexUnreachableError(Exception):
    """The index did not answer; the message says why."""


class Pair(NamedTuple):
    """A torch that the index has a wheel of mmcv for."""

    torch: tuple[int, int]
    device: str
    page: str


def newest_pair(requirement: str, gpu: bool) -> Pair | None:
    """The newest torch that has a wheel of mmcv for this Python and machine.

    Args:
        requirement (str): Which mmcv, such as ``mmcv==2.1.0``.
        gpu (bool): Whether the wheel must have operators for CUDA.

    Returns:
        Pair | None: None where the index has no such wheel.

    Raises:
        IndexUnreachableError: The index did not answer.
    """
    wanted = [(torch, device) for torch in TORCH for device in (CUDA if gpu else ('cpu',))]
    with ThreadPoolExecutor(8) as pool:
        pages = pool.map(lambda pair: page_with_wheel(requirement, *pair), wanted)
        return next((Pair(*pair, page) for pair, page in zip(wanted, pages) if page), None)


def page_with_wheel(requirement: str, torch: tuple[int, int], device: str) -> str | None:
    """The address of the page for a torch and a device, if it has a wheel that fits.

    Args:
        requirement (str): Which mmcv, such as ``mmcv==2.1.0``.
        torch (tuple[int, int]): Major and minor version of torch.
        device (str): ``cpu``, or CUDA as in ``cu121``.

    Returns:
        str | None: What ``pip --find-links`` takes.

    Raises:
        IndexUnreachableError: The index did not answer.
    """
    address = f'{INDEX}/{device}/torch{torch[0]}.{torch[1]}.0/index.html'
    text = read_page(address)
    has_one = text is not None and any(fits(name, requirement) for name in files_of(text))
    return address if has_one else None


def read_page(address: str) -> str | None:
    """The text of a page, or None if the index has no such page."""
    try:
        with urllib.request.urlopen(address, timeout=SECONDS_TO_WAIT) as answer:
            return answer.read().decode('utf-8', 'replace')
    except urllib.error.HTTPError as error:
        # A store of files says 403 of what is not there, unless one may list it.
        if error.code in (403, 404):
            return None
        raise IndexUnreachableError(f'{address} cannot be read: {error}') from None
    except OSError as error:
        reason = getattr(error, 'reason', error)
        raise IndexUnreachableError(f'{address} cannot be read: {reason}') from None


def files_of(page: str) -> list[str]:
    """The names of the files that a page links to."""
    return [unquote(urlparse(link).path).rpartition('/')[2] for link in Links(page).targets]


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == 'a' and name == 'href' and value]


def fits(name: str, requirement: str) -> bool:
    """Whether a file is the wheel of mmcv for this Python, on Linux on this machine."""
    package, _, version = requirement.partition('==')
    parts = name.removesuffix('.whl').split('-')
    if not name.endswith('.whl') or len(parts) != 5:
        return False
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    made_for = parts[4]
    return (
        parts[:3] == [package.replace('-', '_'), version, python]
        and made_for.startswith(('linux', 'manylinux'))
        and made_for.endswith(f'_{platform.machine()}')
    )
