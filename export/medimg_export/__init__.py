"""The workstation: data, training, evaluation, export; `pip install 'medimg-edge[export]'`."""

import os

# TensorFlow reads it while it is loaded, and then greets every user with the drivers it misses.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
