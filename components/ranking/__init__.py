"""From past weeks to two rankers: examples made by the serving code, a light and a heavy network, the score they add up to."""
