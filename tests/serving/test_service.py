"""The server's clock: what moves it, and by how much."""

from serving.service import Clock


class Time:
    """A wall clock and a steady one, set by hand (seconds)."""

    def __init__(self) -> None:
        self.wall = self.steady = 1_700_000_000.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self, start_day: float | None = None, step_days: float = float("inf")) -> Clock:
        return Clock(start_day, step_days, lambda: self.wall, lambda: self.steady)


def test_one_event_moves_the_time_of_all_by_a_day_at_most() -> None:
    time = Time()
    clock = time.clock(100.0, 1.0)
    clock.saw(9_000_000.0)
    assert clock.day() == 101.0
    clock.saw(101.5)
    assert clock.day() == 101.5
    clock.saw(50.0)
    time.passes(86_400)
    assert clock.day() == 102.5


def test_a_jump_of_the_wall_clock_is_hardly_seen_and_one_that_stays_is_made_good() -> None:
    time = Time()
    clock = time.clock()
    time.wall -= 86_400 * 365  # the machine had started a year ahead, and was told
    before = clock.day()
    time.passes(10)
    assert abs(clock.day() - before) < 1.0
    for _ in range(24 * 40):
        time.passes(3600)
        clock.day()
    assert abs(clock.day() - time.wall / 86_400) < 1e-6


def test_a_replays_clock_knows_nothing_of_the_wall() -> None:
    time = Time()
    clock = time.clock(100.0)
    time.wall += 1e9
    time.steady += 43_200
    assert clock.day() == 100.5
    clock.saw(400.0)
    assert clock.day() == 400.0
