"""Which probes and diagnostics, thresholds, verdict; JSON and HTML.

The package can be called: `mlcalc.audit(potential, atoms)` is `mlcalc.audit.run.audit(potential, atoms)`. Otherwise the
call would work until the first `import mlcalc.audit.…`, which binds the package to the same name.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _Callable(types.ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from mlcalc.audit.run import audit

        return audit(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
