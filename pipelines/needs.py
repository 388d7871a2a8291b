"""What each step needs in a cluster, in one table: CPU, memory, a deadline, tries, a GPU where it helps; and where its secrets come from.

The largest process of a training on the shop's full year takes 3.4 GB; every step's record and log line say its own peak (`peak_mb`):
correct this table by it. Scratch space has no field in Kubeflow's pipelines; the LimitRange in `manifests/base/pipelines` bounds it.
"""

from dataclasses import dataclass
from typing import Any

SECRET = "shortlist-steps"  # in the namespace of the runs: who reads and writes S3 and MLflow
CONFIG = "shortlist-steps"  # where S3 and MLflow are
SECRET_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN")
CONFIG_KEYS = ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL", "SHORTLIST_NOTIFY")
GPU = "nvidia.com/gpu"
MLFLOW = "http://mlflow.mlflow:5000"  # where base/mlflow answers


@dataclass(frozen=True)
class Need:
    """One step's."""

    cpu: str  # cores asked for; what is free beyond them is used, too
    memory: str  # asked for
    limit: str  # of memory; beyond it the step is ended
    minutes: int  # the step ends itself after so long
    tries: int = 0  # again after a failure; 0 where a refusal is the likely cause, and a second try the same refusal
    gpu: bool = False  # learns on one where one is asked for


NEEDS = {
    "start": Need("100m", "500Mi", "2Gi", 30, tries=3),
    "ingest": Need("250m", "1Gi", "4Gi", 60, tries=2),
    "served": Need("250m", "1Gi", "4Gi", 60, tries=2),
    "validate": Need("250m", "1500Mi", "4Gi", 60),
    "features": Need("500m", "3Gi", "6Gi", 180),
    "retrieval": Need("500m", "3Gi", "6Gi", 360, tries=1, gpu=True),
    "ranking": Need("500m", "4Gi", "6Gi", 360, tries=1, gpu=True),
    "export": Need("250m", "2Gi", "4Gi", 60, tries=1),
    "pack": Need("250m", "1Gi", "3Gi", 30, tries=1),
    "champion": Need("100m", "500Mi", "2Gi", 30, tries=3),
    "evaluate": Need("500m", "2Gi", "4Gi", 120),
    "gate": Need("100m", "300Mi", "1Gi", 10),
    "register": Need("100m", "700Mi", "2Gi", 60, tries=3),
    "record": Need("100m", "700Mi", "2Gi", 60, tries=3),
    "report": Need("100m", "200Mi", "500Mi", 5, tries=2),
}


def dressed(task: Any, gpu: bool = False) -> Any:
    """The task with what the table says of its step, its secrets by reference and its deadline."""
    from kfp import kubernetes

    name = task.component_spec.name
    need = NEEDS[name]
    task.set_cpu_request(need.cpu).set_memory_request(need.memory).set_memory_limit(need.limit)
    task.set_env_variable("SHORTLIST_STEP_MINUTES", str(need.minutes))
    if need.tries:
        task.set_retry(num_retries=need.tries, backoff_duration="30s", backoff_factor=2.0)
    if need.gpu and gpu:
        task.set_accelerator_type(GPU).set_accelerator_limit(1)
    kubernetes.use_secret_as_env(task, secret_name=SECRET, secret_key_to_env={key: key for key in SECRET_KEYS})
    kubernetes.use_config_map_as_env(task, config_map_name=CONFIG, config_map_key_to_env={key: key for key in CONFIG_KEYS})
    return task
