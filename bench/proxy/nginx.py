"""nginx as the floor: it passes the request on with fixed headers, without knowing who calls. One process, no access log."""

from __future__ import annotations

from pathlib import Path

from bench.proxy import scene

_TEMPLATE = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_headers_hash_max_size 1024;
  proxy_headers_hash_bucket_size 128;
  keepalive_timeout 120s;
  keepalive_requests 1000000000;
  upstream api {{
    server 127.0.0.1:{backend};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    location /k8s/clusters/direct0/ {{
      proxy_pass https://api/;
      proxy_http_version 1.1;
      proxy_ssl_name localhost;
      proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_server_name on;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {backend_ca};
      # A watch must be seen as it comes, and what does not fit waits in the API server, not in a file.
      proxy_buffering off;
      proxy_buffers 8 32k;
      proxy_buffer_size 32k;
      proxy_read_timeout 3600s;
      proxy_set_header Connection "";
      proxy_set_header Host kubernetes;
      proxy_set_header Authorization "{credential}";
{identity}
    }}
  }}
}}
"""


def write_config(
    folder: Path, *, port: int, backend: int, pki: Path, backend_ca: Path, identity: list[list[str]]
) -> Path:
    """The file to start it with."""
    folder.mkdir()
    lines = [f'      proxy_set_header {name} "{value}";' for name, *values in identity for value in values]
    text = _TEMPLATE.format(
        folder=folder, port=port, backend=backend, certificate=pki / "tls.crt", key=pki / "tls.key", backend_ca=backend_ca,
        credential=scene.API_CREDENTIAL, identity="\n".join(lines),
    )  # fmt: skip
    file = folder / "nginx.conf"
    file.write_text(text, encoding="ascii")
    return file
