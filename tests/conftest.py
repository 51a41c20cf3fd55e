"""Property tests find the same examples on every run; AMQPD_EXAMPLES=20 makes them look for more.

The number is a factor on how many examples each test asks for, as a multiple of the profile's
`max_examples`; with it the examples are new on every run.
"""

import os

from hypothesis import HealthCheck, Phase, settings

factor = os.environ.get("AMQPD_EXAMPLES")
settings.register_profile(
    "amqpd",
    max_examples=100 * int(factor or 1),
    deadline=None,
    derandomize=factor is None,
    database=None,
    print_blob=True,
    # Shrinking a failure can take minutes, which helps a person and only delays a CI run.
    phases=[phase for phase in Phase if phase is not Phase.shrink or "CI" not in os.environ],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("amqpd")
