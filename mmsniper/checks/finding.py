"""What a check has found, and what becomes of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mmengine.logging import MMLogger, print_log

from mmsniper.utils.words import numbered

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


def counted(findings: Iterable[Finding]) -> str:
    """How many errors, warnings and notes there are, in words."""
    count = Counter(finding.severity for finding in findings)
    return ', '.join(numbered(count[kind], kind) for kind in SEVERITIES)


# Of this process: what was said before the data were built is not said again after it.
_logged: set[Finding] = set()
# Of those the ones that no log file has: a Runner, which writes one, was not there yet.
_not_in_file: list[str] = []


def refuse_errors(findings: Iterable[Finding], log: bool = True) -> None:
    """Log the warnings, each once, and refuse to go on if there are errors.

    Warnings from before there was a log file are written into it by the first call after that.

    Args:
        findings (Iterable[Finding]): What was found. Notes are left to ``check.py``.
        log (bool): Whether this process logs. Defaults to True.

    Raises:
        ValueError: If there are errors; the message lists all of them.
    """
    findings = merged(findings)
    if log:
        _write_to_file()
    for finding in findings:
        if log and finding.severity == WARNING and finding not in _logged:
            _logged.add(finding)
            print_log(str(finding), logger='current', level=logging.WARNING)
            if not _file_handlers():
                _not_in_file.append(str(finding))
    errors = [str(finding) for finding in findings if finding.severity == ERROR]
    if len(errors) == 1:
        raise ValueError(errors[0])
    if errors:
        raise ValueError(f'{len(errors)} errors:' + ''.join(f'\n- {error}' for error in errors))


def _file_handlers() -> list[logging.Handler]:
    handlers = MMLogger.get_current_instance().handlers
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def _write_to_file() -> None:
    """Write into the log file, once there is one, what was logged on the screen before."""
    handlers = _file_handlers() if _not_in_file else []
    for handler in handlers:
        for message in _not_in_file:
            if handler.level <= logging.WARNING:
                handler.handle(
                    logging.LogRecord('mmengine', logging.WARNING, '', 0, message, None, None)
                )
    if handlers:
        _not_in_file.clear()
