"""Generated requests against the OpenAPI document: no 500, no hang, and every answer of the documented form.

`python -m tests.serving.http.test_openapi 10000` asks that many.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from tests.serving.servers import in_process, tiny_options

CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 300


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    parts = in_process(tiny_options(tmp_path_factory.mktemp("openapi")))
    yield parts.app
    for close in parts.closers:
        close()


def takes_something(operation: Any) -> bool:
    return bool(len(operation.path_parameters) or operation.body)


def ask_much(app: Any, examples: int) -> int:
    """Send valid and invalid requests to every operation; how many were sent. Raises at the first answer that breaks the document."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [result.ok() for result in schema.get_all_operations()]
    share = max(examples // sum(map(takes_something, operations)), 1)
    sent = 0
    for operation in operations:
        modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if takes_something(operation) else (GenerationMode.POSITIVE,)
        for mode in modes:  # a request that takes nothing cannot be wrong

            @settings(
                max_examples=max(share // 2, 1),
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                nonlocal sent
                sent += 1
                case.call_and_validate(checks=CHECKS)

            ask()
    return sent


def test_generated_requests_end_in_documented_answers(app: Any) -> None:
    assert ask_much(app, EXAMPLES) >= EXAMPLES // 2


def test_the_documents_own_examples_are_answered(app: Any) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    for result in schema.get_all_operations():
        operation = result.ok()
        content = operation.definition.raw.get("requestBody", {}).get("content", {})
        if content:
            case = operation.Case(body=content["application/json"]["example"], media_type="application/json")
            assert case.call().status_code == 200, operation.label


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = in_process(tiny_options(Path(folder)))
        print(ask_much(made.app, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000), "requests, none of them a 500")
        for end in made.closers:
            end()
