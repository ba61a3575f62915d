"""What a check has found, and what becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mmengine.logging import print_log

ERROR, WARNING, NOTE = SEVERITIES = ('error', 'warning', 'note')


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: ``ERROR``, something wrong would be trained or reported; ``WARNING``, so it may
            be; or ``NOTE``.
        where: The config key or the file.
        what: What was found there.
        fix: What to do; '' for a note.
    """

    severity: str
    where: str
    what: str
    fix: str = ''

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f'severity must be one of {SEVERITIES}, got {self.severity!r}')

    def __str__(self) -> str:
        return f'{self.where}: {self.what}' + (f'. {self.fix}' if self.fix else '')


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity; of those that differ in their place only, one that names all places."""
    places: dict[Finding, dict[str, None]] = {}
    for finding in findings:
        places.setdefault(replace(finding, where=''), {})[finding.where] = None
    whole = [replace(finding, where=', '.join(where)) for finding, where in places.items()]
    return sorted(whole, key=lambda finding: SEVERITIES.index(finding.severity))


# Of this process: what was said before the data were built is not said again after it.
_logged: set[Finding] = set()


def refuse_errors(findings: Iterable[Finding], log: bool = True) -> None:
    """Log the warnings, each once, and refuse to go on if there are errors.

    Args:
        findings (Iterable[Finding]): What was found. Notes are left to ``check.py``.
        log (bool): Whether this process logs. Defaults to True.

    Raises:
        ValueError: If there are errors; the message lists all of them.
    """
    findings = merged(findings)
    for finding in findings:
        if log and finding.severity == WARNING and finding not in _logged:
            _logged.add(finding)
            print_log(str(finding), logger='current', level=logging.WARNING)
    errors = [str(finding) for finding in findings if finding.severity == ERROR]
    if len(errors) == 1:
        raise ValueError(errors[0])
    if errors:
        raise ValueError(f'{len(errors)} errors:' + ''.join(f'\n- {error}' for error in errors))
