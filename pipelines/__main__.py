"""`python -m pipelines`: the same as `shortlist`."""

from pipelines.cli import main

main()
