"""What all manifests keep to, whatever overlay or option: exact images, little power, honest probes, references that lead somewhere."""

import re
import shutil
from collections.abc import Iterator

import pytest

from pipelines.needs import NEEDS
from tests.manifests.rendered import OPTIONS, OVERLAYS, Object, containers, named, of_kind, platform_services, pods, rendered, with_option
from tests.manifests.rights import RIGHTS

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl, which holds Kustomize")

RENDERED = [*OVERLAYS, *(f"+{option}" for option in OPTIONS), "services"]
SECRETS_OF_PRODUCTION = {"s3", "webhook", "postgres", "mlflow", "recommender-keys", "shortlist-steps"}  # made by whoever keeps them


def objects(name: str) -> tuple[Object, ...]:
    if name == "services":
        return platform_services()
    return with_option(name[1:]) if name.startswith("+") else rendered(name)


@pytest.fixture(params=RENDERED)
def made(request: pytest.FixtureRequest) -> tuple[Object, ...]:
    return objects(request.param)


def each(made: tuple[Object, ...]) -> Iterator[tuple[str, Object, Object]]:
    """Name, pod and container."""
    for name, _, pod in pods(made):
        for container in containers(pod):
            yield f"{name}:{container['name']}", pod, container


def test_every_image_has_an_exact_tag_or_a_digest(made: tuple[Object, ...]) -> None:
    exact = re.compile(r"[^\s:@]+(:[0-9]+)?/[^\s:@]+(@sha256:[0-9a-f]{64}|:v?\d+\.\d+(\.\d+)?([-.][0-9a-z.-]+)?)")
    assert [f"{name}: {one['image']}" for name, _, one in each(made) if not exact.fullmatch(one["image"])] == []


def test_every_container_says_what_it_needs(made: tuple[Object, ...]) -> None:
    def said(one: Object) -> bool:
        asked = one.get("resources", {})
        return {"cpu", "memory"} <= asked.get("requests", {}).keys() and "memory" in asked.get("limits", {})

    assert [name for name, _, one in each(made) if not said(one)] == []


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_the_drift_job_reads_the_tables_within_what_the_step_that_reads_them_is_given(overlay: str) -> None:
    (job,) = (one for one in of_kind(rendered(overlay), "CronJob") if one["metadata"]["name"] == "drift")
    (container,) = containers(job["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    assert container["resources"]["limits"]["memory"] == NEEDS["ingest"].limit


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_a_training_that_drift_asks_for_runs_in_the_image_that_looked_for_it(overlay: str) -> None:
    (job,) = (one for one in of_kind(rendered(overlay), "CronJob") if one["metadata"]["name"] == "drift")
    (container,) = containers(job["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    assert "--image=$(STEPS_IMAGE)" in container["command"]
    assert {one["name"]: one["value"] for one in container["env"]}["STEPS_IMAGE"] == container["image"]


def test_no_container_can_do_more_than_its_work(made: tuple[Object, ...]) -> None:
    def restricted(pod: Object, one: Object) -> bool:
        whole, own = pod.get("securityContext", {}), one.get("securityContext", {})
        return (
            whole.get("runAsNonRoot") is True
            and int(whole.get("runAsUser", 0)) > 0
            and whole.get("seccompProfile") == {"type": "RuntimeDefault"}
            and own.get("allowPrivilegeEscalation") is False
            and own.get("readOnlyRootFilesystem") is True
            and own.get("capabilities") == {"drop": ["ALL"]}
            and not own.get("privileged")
            and not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
        )

    assert [name for name, pod, one in each(made) if not restricted(pod, one)] == []


def test_no_volume_reaches_into_the_node_and_every_empty_one_has_a_bound(made: tuple[Object, ...]) -> None:
    allowed = ("emptyDir", "persistentVolumeClaim", "secret", "configMap")
    wrong = [
        f"{name}: {volume['name']}"
        for name, _, pod in pods(made)
        for volume in pod.get("volumes", [])
        if not any(kind in volume for kind in allowed) or ("emptyDir" in volume and "sizeLimit" not in volume["emptyDir"])
    ]
    assert wrong == []


def test_servers_tell_alive_from_ready(made: tuple[Object, ...]) -> None:
    """Main containers of what stays up: both probes; where both ask a path of a server that loads a bundle, two paths."""
    missing, same = [], []
    for name, _, pod in pods(made):
        if name.startswith(("CronJob", "Job")):
            continue
        for one in pod["containers"]:
            if not {"livenessProbe", "readinessProbe"} <= one.keys():
                missing.append(f"{name}:{one['name']}")
            elif "serving" in one["image"]:
                paths = [one[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
                same += [f"{name}: {paths}"] if paths != ["/healthz", "/readyz", "/readyz"] else []
    assert (missing, same) == ([], [])


def test_every_workload_has_an_account_of_its_own(made: tuple[Object, ...]) -> None:
    accounts: dict[str, set[str]] = {}
    for name, _, pod in pods(made):
        kind = "predictors" if name.startswith("InferenceService") else name
        accounts.setdefault(pod.get("serviceAccountName", "default"), set()).add(kind)
    assert "default" not in accounts
    assert {account: users for account, users in accounts.items() if len(users) > 1} == {}


def test_an_account_without_rights_carries_no_token(made: tuple[Object, ...]) -> None:
    bound = {subject["name"] for one in of_kind(made, "RoleBinding", "ClusterRoleBinding") for subject in one["subjects"]}
    carries = {
        name
        for name, _, pod in pods(made)
        if pod["serviceAccountName"] not in bound and pod.get("automountServiceAccountToken") is not False
    }
    assert carries == set()


def test_rights_are_those_listed_and_no_others(made: tuple[Object, ...]) -> None:
    assert of_kind(made, "ClusterRole", "ClusterRoleBinding") == []
    for role in of_kind(made, "Role"):
        given: dict[tuple[str, str], set[str]] = {}
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    given.setdefault((group, resource), set()).update(rule["verbs"])
        assert given == RIGHTS[role["metadata"]["name"]], named(role)


def asked_by(pod: Object) -> Iterator[tuple[str, str]]:
    """Kind and name of everything a pod refers to in its namespace."""
    yield "ServiceAccount", pod["serviceAccountName"]
    for volume in pod.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
    for one in containers(pod):
        for source in one.get("envFrom", []):
            yield from (("ConfigMap" if kind == "configMapRef" else "Secret", value["name"]) for kind, value in source.items())
        for variable in one.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield "Secret", reference["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_pod_names_is_there(overlay: str) -> None:
    """Accounts, claims, ConfigMaps and Secrets, each in the pod's own namespace; Secrets of production are others' to make."""
    made = rendered(overlay)
    there = {(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in made}
    spaces = {named(one): one["metadata"]["namespace"] for one in made if "namespace" in one["metadata"]}
    missing = []
    for name, _, pod in pods(made):
        for kind, wanted in sorted(asked_by(pod)):
            elsewhere = overlay == "production" and kind == "Secret" and wanted in SECRETS_OF_PRODUCTION
            if (kind, spaces[name], wanted) not in there and not elsewhere:
                missing.append(f"{name} names {kind}/{wanted}")
    assert missing == []


def test_no_secret_is_written_down(made: tuple[Object, ...]) -> None:
    """Only a cluster for trying has Secrets here: the credentials that upstream ships, and words that say so."""
    told = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", re.IGNORECASE)
    plain = [
        f"{name}: {of['name']}" for name, _, one in each(made) for of in one.get("env", []) if told.search(of["name"]) and "value" in of
    ]
    assert plain == []
    if of_kind(made, "Secret"):
        assert made in (rendered("kind"), rendered("one-bundle"), platform_services())  # one-bundle is kind's


def test_services_and_routes_lead_to_pods(made: tuple[Object, ...]) -> None:
    labels = {name: of for name, of, _ in pods(made)}
    ports = {}
    for service in of_kind(made, "Service"):
        chosen = service["spec"]["selector"].items()
        assert any(chosen <= of.items() for of in labels.values()), named(service)
        ports[service["metadata"]["name"]] = {port["port"] for port in service["spec"]["ports"]}
    for route in of_kind(made, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            assert all(backend["port"] in ports[backend["name"]] for backend in rule["backendRefs"])
    for one in of_kind(made, "Deployment", "StatefulSet"):
        assert one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()


def test_what_runs_twice_is_spread_and_kept(made: tuple[Object, ...]) -> None:
    """A budget for disruptions and a spread over nodes for whatever has more than one pod in production."""
    kept = [one["spec"]["selector"]["matchLabels"].items() for one in of_kind(made, "PodDisruptionBudget")]
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(made, "HorizontalPodAutoscaler")}
    for one in of_kind(made, "Deployment", "InferenceService"):
        several = one["spec"].get("replicas", 1) > 1 or one["metadata"]["name"] in scaled or one["kind"] == "InferenceService"
        if several:
            labels, pod = next((labels, pod) for name, labels, pod in pods(made) if name == named(one))
            assert any(selector <= labels.items() for selector in kept), f"{named(one)} has no PodDisruptionBudget"
            assert pod["topologySpreadConstraints"], named(one)


def test_nothing_reaches_anything_but_by_its_arrow() -> None:
    for name in ("kind", "production", "+network-policies"):
        made = tuple(one for one in objects(name) if one["metadata"].get("namespace") == "shortlist")
        policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(made, "NetworkPolicy")}
        closed = policies.pop("deny-all")
        assert closed["podSelector"] == {}
        assert sorted(closed["policyTypes"]) == ["Egress", "Ingress"]
        assert "ingress" not in closed
        assert [port["port"] for rule in closed["egress"] for port in rule["ports"]] == [53, 53]
        for spec in policies.values():
            for rule in [*spec.get("ingress", []), *spec.get("egress", [])]:
                assert rule.get("ports"), "an arrow has a port"
                assert rule.get("to") or rule.get("from"), "an arrow has two ends"
        selected = [labels for _, labels, _ in pods(made) if any(_selects(spec["podSelector"], labels) for spec in policies.values())]
        assert len(selected) == len(list(pods(made))), "every workload is at an arrow's end"


def _selects(selector: Object, labels: Object) -> bool:
    match = selector.get("matchLabels", {}).items() <= labels.items()
    return match and all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


def test_what_the_rollout_controller_writes_is_not_written_here(made: tuple[Object, ...]) -> None:
    """Else applying a manifest again would take back a release. `canaryTrafficPercent` has no effect in Standard mode: never here."""
    for one in of_kind(made, "InferenceService"):
        predictor = one["spec"]["predictor"]
        assert "canary" not in one["spec"]
        assert not {"name", "labels", "canaryTrafficPercent"} & predictor.keys()
        if made != rendered("one-bundle"):  # which has no controller
            assert not {"storageUri", "args"} & predictor["model"].keys()
        assert one["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"


def test_namespaces_enforce_the_restricted_standard(made: tuple[Object, ...]) -> None:
    spaces = of_kind(made, "Namespace")
    assert spaces
    assert {one["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for one in spaces} == {"restricted"}
