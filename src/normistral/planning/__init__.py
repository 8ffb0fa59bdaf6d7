"""What a run is going to need and see, told before anything is spent."""

from normistral.planning.mixture import MIXTURE_HEADINGS, mixture_rows, plan_of_recipe
from normistral.planning.tokens import count_tokens

__all__ = ["MIXTURE_HEADINGS", "count_tokens", "mixture_rows", "plan_of_recipe"]
