"""The Python client of the HTTP service. Import it as `raysys`.

A call is described once, in `queries` or `changes`: its request, and how its response is read. `attempts`
decides when it is sent again and when it has failed, `responses` turns an error of the service into an
exception of `raysys.errors`. `Client` and `AsyncClient` only send bytes. The import loads neither Ray, torch,
FAISS nor pyarrow.
"""

from raysys.client.changes import Delete, Upsert
from raysys.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "Delete", "Upsert"]
