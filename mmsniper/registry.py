"""MMDetection's registries under the scope ``mmsniper``, where mmengine looks for this file.

A config that inherits from ``mmsniper::`` and uses a variable of its base gets
``_scope_='mmsniper'``. All that mmsniper has is registered in MMDetection's registries, so that no
scope is needed elsewhere; these are empty and hand on to those.
"""

from mmdet import registry
from mmengine.registry import Registry

import mmsniper

mmsniper.register_all_modules()

# Beside MMDetection's own, its module has those of mmengine.
for parent in [value for value in vars(registry).values() if isinstance(value, Registry)]:
    if parent.scope == 'mmdet':
        Registry(parent.name, parent=parent, scope='mmsniper', locations=['mmsniper'])
