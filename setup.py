"""The compiled loops of a request. Optional: where they cannot be compiled, ONNX Runtime or numpy do the same (serving/native/kernel.py).

Everything else of the package is in pyproject.toml; this is here because only numpy knows where its headers are. Cython turns `_kernel.pyx`
into C under build/.
"""

from glob import glob

import numpy
from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "serving.native._kernel",
            ["serving/native/_kernel.pyx", *sorted(glob("serving/native/*.c"))],
            include_dirs=[numpy.get_include()],
            depends=sorted(glob("serving/native/*.h")),
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"],
            optional=True,
        )
    ],
    options={"build_ext": {"cython_c_in_temp": True}},
)
