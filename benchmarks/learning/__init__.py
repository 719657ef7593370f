"""What a fleet learns, on real data: each module simulates devices and server in one process, on the code that runs.

NumPy sums on one thread, as in the server's own worker (``broker_server/workshop.py``): threads that wait for each
other count as CPU seconds. NumPy reads that when it is imported, which is after this.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
