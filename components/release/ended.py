"""How a training on a cluster ended, told to whoever is to know: a line in the log, a message to an address of the cluster's choice."""

import json
import os
import urllib.request

ADDRESS = "SHORTLIST_NOTIFY"  # takes a POST of {"text": …}, as chat systems do; empty or absent: nobody is told
_SECONDS = 10.0


def tell(system: str, cause: str, state: str, run: str, error: str) -> str:
    """Print the sentence, send it where there is an address, and return it. An address that does not answer is a line in the log."""
    because = f", begun because {cause}" if cause else ""
    sentence = f"Training of {system}{because}: {state}. Run {run}." + (f" {error}" if error else "")
    print(sentence, flush=True)
    if address := os.environ.get(ADDRESS, ""):
        request = urllib.request.Request(address, json.dumps({"text": sentence}).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
                print(f"told {address}: {reply.status}", flush=True)
        except OSError as problem:
            print(f"{address} could not be told ({problem}): the run's own state says the same", flush=True)
    return sentence
