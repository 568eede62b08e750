"""Charts: what moves."""

from fisherflat.spaces.charts import *
from fisherflat.spaces.charts import __all__ as __all__
