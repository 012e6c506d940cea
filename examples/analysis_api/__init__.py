"""A stand-in for the KlipStream Analysis API 2.0.0, whose jobs do nothing but pass the time.

It answers as the recorded samples in tests/data/upstream do, quirks included, and can be told to
misbehave. `job` is the simulated job, `answer` its bodies, `creation` reads what a client asks for,
`stream` sends server-sent events, `fault` spoils answers, `state` is what a restart forgets,
`control` sets faults and tells what arrived, `app` holds the routes.
"""

from examples.analysis_api.app import build_app
from examples.analysis_api.state import STATE, Config, State

__all__ = ["STATE", "Config", "State", "build_app"]
