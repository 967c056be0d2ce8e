"""An nginx, before a gateway or as a backend."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.process import free_port
from tests.support.until import until_now

PROXY = """
daemon off; pid {folder}/pid; error_log /dev/null;
events {{}}
http {{
  access_log off; client_max_body_size 0; ignore_invalid_headers off; underscores_in_headers on;
  large_client_header_buffers 8 64k; merge_slashes off;
  keepalive_timeout 100ms; client_header_timeout 100ms; client_body_timeout 100ms;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 1; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Connection ""; proxy_set_header Host $http_host;
    }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(config: str, folder: Path, port: int) -> Iterator[None]:
    """Run an nginx in a folder, from when it listens at `port` to the end of the block."""
    program = shutil.which("nginx")
    assert program, "this test needs nginx: apt-get install nginx"
    (folder / "nginx.conf").write_text(config)
    with subprocess.Popen([program, "-c", folder / "nginx.conf", "-p", folder]) as process:
        try:
            wait_for(port, process)
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def nginx_before(upstream: int, folder: Path) -> Iterator[int]:
    """Run an nginx that passes all on to a port of loopback; yield its own port."""
    port = free_port()
    with nginx(PROXY.format(folder=folder, port=port, upstream=upstream), folder, port):
        yield port


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Return once a process listens at a port of loopback."""

    def listens() -> bool:
        assert process.poll() is None, "the process ended while starting"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until_now(listens)
