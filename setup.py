"""What setup.cfg cannot say: on an index page, README.md's links need the address of the files."""

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = 'https://github.com/mmsniper/mmsniper'
README = Path(__file__).with_name('README.md').read_text('utf-8')


def absolute(match):
    """A link with the address of the repository; a picture's leads to the file itself."""
    picture, text, target = match.groups()
    return f'{picture}[{text}]({REPOSITORY}/{"raw" if picture else "blob"}/main/{target})'


setup(long_description=re.sub(r'(!?)\[([^]]*)\]\((?![\w+]+:|#)([^)]+)\)', absolute, README))
