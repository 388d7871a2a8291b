"""What each ServiceAccount may do, as the API server says it: the listed verbs and no others."""

import re
import subprocess

import pytest

from tests.cluster.conftest import kubectl
from tests.manifests.rights import RIGHTS

pytestmark = pytest.mark.cluster
EVERYBODY = {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"}  # asking what one may do


@pytest.mark.parametrize("account", ["recommender", "rollout", "webhook", "drift", "models", "default"])
def test_an_account_may_do_what_is_listed_and_nothing_else(account: str) -> None:
    told = kubectl("auth", "can-i", "--list", "-n", "shortlist", f"--as=system:serviceaccount:shortlist:{account}")
    given: dict[tuple[str, str], set[str]] = {}
    for line in told.splitlines()[1:]:
        resource, _, group = line.split()[0].partition(".")
        verbs = set(re.findall(r"\[([^\]]*)\]$", line)[0].split())
        if line.startswith(("[", " ")) or resource in EVERYBODY:
            continue  # addresses that are no resources
        given.setdefault((group, resource), set()).update(verbs)
    assert given == RIGHTS.get(account, {})


@pytest.mark.parametrize("account", ["recommender", "rollout", "webhook", "drift", "models"])
def test_no_account_reads_secrets_or_reaches_another_namespace(account: str) -> None:
    who = f"--as=system:serviceaccount:shortlist:{account}"
    for words in (["get", "secrets", "-n", "shortlist"], ["get", "pods", "-n", "kubeflow"], ["create", "pods", "-n", "shortlist"]):
        said = subprocess.run(["kubectl", "auth", "can-i", *words, who], capture_output=True, text=True).stdout.strip()
        assert said == "no", words
