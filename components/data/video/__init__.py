"""A video platform with known truth: who wants what, what is uploaded, how lists are met. `components/data/video_world.py` is its front."""
