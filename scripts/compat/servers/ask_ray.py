"""Ray Serve, which has no client of its own."""

import web

web.asked()
