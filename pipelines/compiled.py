"""The pipelines as YAML for a cluster, their steps in the image that is given.

Kubeflow skips a step it has seen in an image of the same name: name it by its digest, or a rebuilt image under an old tag answers with
the results of the old one.
"""

import re
from pathlib import Path
from typing import Any

BY_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")


class BadImage(ValueError):
    """The given name is no image's."""


def compile_pipeline(pipeline: Any, system: str, out: Path, image: str = "") -> bool:
    """Write the pipeline with this system as its default, its steps in `image` (empty: the one `make images` tags).

    Whether the image is named by its digest. Raises `BadImage` for a digest that is none.
    """
    import yaml
    from kfp import compiler

    if "@" in image and not BY_DIGEST.fullmatch(image):
        raise BadImage(
            f"{image!r} names no image by its digest: write NAME@sha256: and 64 hexadecimal digits, as `docker push` prints them"
        )
    compiler.Compiler().compile(pipeline, str(out), pipeline_parameters={"system": system})
    if image:
        spec, *more = yaml.safe_load_all(out.read_text())
        for executor in spec["deploymentSpec"]["executors"].values():
            executor["container"]["image"] = image
        out.write_text(yaml.safe_dump_all([spec, *more], sort_keys=True))
    return bool(BY_DIGEST.fullmatch(image))
