"""The native kernel: hot loops of a request in C. Optional; `serving/native/kernel.py` chooses, and gives the same lists without it."""
