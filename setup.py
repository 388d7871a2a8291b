"""The compiled loops of a request. Optional: where they cannot be compiled, ONNX Runtime or numpy do the same (serving/native/kernel.py).

Everything else of the package is in pyproject.toml; this is here because only numpy knows where its headers are.
"""

from glob import glob

import numpy
from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "serving.native._kernel",
            sorted(glob("serving/native/*.c")),
            include_dirs=[numpy.get_include()],
            depends=sorted(glob("serving/native/*.h")),
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno"],
            optional=True,
        )
    ]
)
