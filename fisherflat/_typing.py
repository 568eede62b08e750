"""Shape annotations, with a stand-in where jaxtyping is not installed.

The core runs with torch and numpy alone, so jaxtyping is optional at run time; the tests install it and check every
annotated call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _Unchecked:
            def __getitem__(self, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = _Unchecked()

__all__ = ["Bool", "Float", "Int", "Tensor"]
