"""What the bench of forms says of times made by hand."""

from components.export.forms import DRAWN
from tests.bench.forms import share


def test_the_share_is_of_both_rankers_at_their_own_number_of_candidates() -> None:
    """Light as drawn 100 µs for 1000, served 40; heavy as drawn 900 for 200, served 60: a tenth of both. Other counts do not matter."""
    light = {DRAWN: {"200": (7.0, 0.0), "1000": (100.0, 1.0)}, "fp32": {"200": (7.0, 0.0), "1000": (40.0, 1.0)}}
    heavy = {DRAWN: {"200": (900.0, 9.0), "1000": (7.0, 0.0)}, "student": {"200": (60.0, 2.0), "1000": (7.0, 0.0)}}
    found = {"light": ({"served": "fp32"}, light, {}), "heavy": ({"served": "student"}, heavy, {})}
    assert share(found) == 0.1
