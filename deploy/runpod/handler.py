"""The Hub wants a file of this name; the worker itself is `limner runpod`, which this becomes."""

import os

os.execvp("limner", ["limner", "runpod"])
