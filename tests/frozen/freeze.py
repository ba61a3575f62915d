"""Store anew what the tests beside this file compare with: what must not change unnoticed.

    python tests/frozen/freeze.py [configs|plans|detections ...]

Whoever changes what is stored states the difference, and why, in the commit that makes it.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')  # as tests/conftest.py does
sys.path.append(str(Path(__file__).resolve().parents[1]))  # as pytest does

PARTS = ('configs', 'plans', 'detections')


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('parts', nargs='*', metavar='PART', help='of them; default: all of them')
    parts = parser.parse_args().parts or PARTS
    for part in parts:
        if part not in PARTS:
            parser.error(f'there is no {part}, only {", ".join(PARTS)}')
    for part in parts:
        importlib.import_module(f'test_frozen_{part}').freeze()
        print(f'{part}: stored')


if __name__ == '__main__':
    main()
