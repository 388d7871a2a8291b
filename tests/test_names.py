"""One meaning, one name: no class is defined twice, and comments cite only what is in the repository."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [path for folder in ("feature_repo", "serving", "components", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]
DOCUMENT = re.compile(r"\b[\w/]+\.md\b")


def test_no_class_name_is_defined_twice() -> None:
    names = Counter(name for path in FILES for name in re.findall(r"^class (\w+)", path.read_text(), re.M))
    assert sorted(name for name, times in names.items() if times > 1) == []


def test_a_document_that_code_cites_is_there() -> None:
    cited = {(path.relative_to(ROOT).as_posix(), name) for path in FILES for name in DOCUMENT.findall(path.read_text())}
    assert sorted(pair for pair in cited if not (ROOT / pair[1]).is_file()) == []
