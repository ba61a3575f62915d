"""What a config, its data and its checkpoint must agree on, checked before anything is trained."""

from mmsniper.checks.finding import ERROR, NOTE, WARNING, Finding, counted, merged, refuse_errors

__all__ = ['ERROR', 'NOTE', 'WARNING', 'Finding', 'counted', 'merged', 'refuse_errors']
