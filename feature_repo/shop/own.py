"""What a grocery with stores knows beyond the library: what its stores plan to put on display, or into their mailers."""

from feature_repo.library import Before, Feature, Grain, Sum, Table


def _holding(past: Before) -> Table:
    """The plans that hold at the cut, each with the number of places that have any."""
    plans = past.context.filter((past.context.valid_from <= past.moment) & (past.context.valid_until > past.moment))
    return plans.cross_join(plans.aggregate(places=plans.place.nunique()))


HOLDING = Grain(_holding)


def planned(name: str, where: str) -> Feature:
    """Share of places that plan a display, or a mailer, for the item at the cut."""
    planning = Sum(HOLDING, lambda plans: plans.place.nunique(where=plans[where].notnull()))
    places = Sum(HOLDING, lambda plans: plans.places.max())
    return Feature(name, (planning, places), lambda some, every: some.fill_null(0) / every.fill_null(1))
