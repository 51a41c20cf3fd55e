"""Property tests find the same examples on every run; AMQPD_EXAMPLES=20 makes them look for more.

The number is a factor on how many examples each test asks for (see `tests/examples.py`); with it
the examples are new on every run.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "amqpd",
    deadline=None,
    derandomize="AMQPD_EXAMPLES" not in os.environ,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("amqpd")
