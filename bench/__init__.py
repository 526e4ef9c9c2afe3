import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch's profiler writes two lines to stderr for every profile
