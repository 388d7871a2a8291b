"""Event types the schema does not know: which known one is nearest, and what they would mean to a system of one's own."""

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from feature_repo.schema import EVENT_TYPES
from serving.system import System

_SAME = {  # words of other systems -> those of the schema's types
    "item": "product", "page": "product", "detail": "product", "buy": "purchase", "bought": "purchase", "order": "purchase",
    "transaction": "purchase", "checkout": "purchase", "play": "watch", "favorite": "like", "favourite": "like", "wishlist": "like",
    "viewed": "view", "select": "click", "basket": "cart", "rating": "like", "review": "like", "listen": "watch", "read": "watch",
}  # fmt: skip
_UNDONE = {"remove", "removed", "delete", "cancel", "canceled", "cancelled", "refund", "return", "unlike"}


def nearest(name: str, known: Sequence[str] = EVENT_TYPES) -> str:
    """The known type that shares most words with `name`, then most letters: `view_item` is a `product_view`."""
    words = {_SAME.get(word, word) for word in words_of(name)}

    def likeness(other: str) -> tuple[int, float]:
        return len(words & words_of(other)), SequenceMatcher(
            None, " ".join(sorted(words_of(name))), " ".join(sorted(words_of(other)))
        ).ratio()

    return max(known, key=likeness)


def words_of(name: str) -> set[str]:
    """`ViewItem`, `view-item` and `view_item` have the same words."""
    parted = "".join(
        f" {letter}" if letter.isupper() and before.islower() else letter for before, letter in zip(" " + name, name, strict=False)
    )
    return set("".join(letter if letter.isalnum() else " " for letter in parted.lower()).split())


def meaning_of(name: str) -> str:
    """What a system file may say of a type that is not its main one, as it is written there."""
    if words_of(name) & _UNDONE:
        return "Ignored()"
    return _MEANT[nearest(name)]


_MEANT = {
    "impression": "Shown()",
    "product_view": "Signal(0.3)",
    "video_view": "Signal(0.3)",
    "click": "Signal(0.6)",
    "add_to_cart": "Signal(1.0)",
    "purchase": "Positive()",
    "watch": "Signal(0.6)",
    "like": "Signal(1.0)",
    "dislike": "Negative()",
    "hide": "Never()",
    "unhide": "Again()",
}


def sentence_of_unknown(system: System, found: Mapping[str, int]) -> str:
    """What to do about event types the system does not know, given the rows of every type; empty when it knows them all."""
    unknown = [name for name in found if name not in system.event_types]
    if not unknown:
        return ""
    values = ", ".join(
        f"{name} {count:,}" + (f" (unknown; nearest: {nearest(name)})" if name in unknown else "") for name, count in found.items()
    )
    named = ", ".join(f'"{name}": {meaning_of(name)}' for name in found)
    return (
        f"The events' types are {values}. {system.name} knows {', '.join(system.event_types)}. Rename the others, or name them in a"
        f" system file of your own, events={{{named}}}: `shortlist new NAME --data DIR` writes one."
    )
