"""Where `components/ranking/fit.py` finds what networks are learnt together by."""

from components.together import ALONE, Together, launch

__all__ = ["ALONE", "Together", "launch"]
