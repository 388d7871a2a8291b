"""What a system's rankers are made of, and how small a form of them may answer: numbers of the system file.

Learning(heavy=Network((512, 256), towers=(512, 256), context=(128, 64), dropout=0.3),
         compression=Compression(("int8", "pruned", "student"), lost=0.02))
"""

from dataclasses import dataclass, replace

JUDGED = 60
STEPS = ("student", "pruned", "int8")  # what a form may be made by, one after another: joined by "+", as "student+int8"
FULL = "fp32"  # the network as it was learnt


class BadNetwork(ValueError):
    """Widths or forms that no ranker can have."""


@dataclass(frozen=True)
class Network:
    """A ranker's widths (`components/ranking/model.py`)."""

    hidden: tuple[int, ...]  # first: where the sides of user, item and context meet; then the layers above
    towers: tuple[int, ...] = ()  # of the user's and of the item's side, each with batch norm; none: a straight path and a bent one
    context: tuple[int, ...] = ()  # of what tells of user and item together; none: it meets the sides as it is
    dropout: float = 0.0  # in the towers

    def __post_init__(self) -> None:
        widths = (*self.hidden, *self.towers, *self.context)
        if not self.hidden or any(width < 1 for width in widths) or not 0 <= self.dropout < 1:
            raise BadNetwork(f"{self}: expected widths of at least 1, one or more hidden, and a dropout below 1: correct the system file")


@dataclass(frozen=True)
class Compression:
    """Which smaller forms of the rankers are tried at export, and how much the one that is served may lose.

    The fastest form within all bounds is served; `fp32`, the network as it was learnt, where none is.
    """

    forms: tuple[str, ...] = ("int8",)
    student: tuple[int, ...] = (128, 64)  # of the heavy ranker: `hidden` of the network that learns from it
    pruned: float = 0.3  # share of hidden units that a pruned form is without
    judged: int = JUDGED  # requests that every form is asked
    taught: int = 0  # requests, of other users, that students and pruned forms learn from
    steps: int = 1000  # of a student's learning; a pruned form, which knows most already, takes three tenths
    lost: float = 0.003  # most of NDCG at the depth that is kept, as a share of fp32's
    overlap: float = 0.99  # least of the kept candidates that fp32 keeps too; 0: any that are as good
    error_grown: float = 0.05  # most by which a weighted head's mean error may grow, as a share of fp32's
    faster: float = 1.5  # least times as fast as fp32: below it the choice would hang on the noise of a measurement

    @property
    def untaught(self) -> "Compression":
        """The same bounds for what `--fast` learns, which is small already: only forms that need no lessons, few requests to judge by."""
        return replace(self, forms=tuple(form for form in self.forms if form == "int8"), judged=min(self.judged, JUDGED), taught=0)

    def __post_init__(self) -> None:
        for form in self.forms:
            if form != "+".join(step for step in STEPS if step in form.split("+")):
                raise BadNetwork(
                    f"compression has a form {form!r}: expected of {', '.join(STEPS)} one or more in this order, as student+int8"
                )
        if not self.taught and any(form != "int8" for form in self.forms):
            raise BadNetwork(
                f"compression tries {', '.join(self.forms)} with taught=0: pruned forms and students need requests to learn from"
            )


LIGHT, HEAVY, COMPRESSION = Network((64,)), Network((128, 64)), Compression()  # of a system that says nothing
