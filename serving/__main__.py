"""`python -m serving --bundle DIR --system shop`: a server, or with several workers or a file to follow the supervisor of some."""
# ruff: noqa: E402 -- the number of threads is set before numpy is imported

import os
import sys

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # one process a core: before numpy is imported
    os.environ.setdefault(_threads, "1")
if "--control-fd" not in sys.argv:  # only a supervisor's workers share counters; Feast sets this for whatever it starts
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from serving.worker.options import parse
from serving.worker.run import run_server

if __name__ == "__main__":
    sys.exit(run_server(parse(sys.argv[1:])))
