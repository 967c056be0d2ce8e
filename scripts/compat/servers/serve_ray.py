"""The FastAPI application as a deployment of Ray Serve: serve_ray.py PORT FOLDER."""

import signal
import sys

import ray
from application import app
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 0})
@serve.ingress(app)
class Small:
    """Serves the application."""


ray.init(num_cpus=1, include_dashboard=False, configure_logging=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(Small.bind(), name="small", route_prefix="/")
signal.pause()
