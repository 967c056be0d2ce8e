"""A trace that a caller began, and a gateway that records all."""

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
ALWAYS = '[tracing]\nendpoint = "http://127.0.0.1:1"\nsample = 1.0\n'
