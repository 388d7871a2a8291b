"""How good: what the recommender answers, judged on the days after the cut, and whether that is good enough to release."""
