"""Headers that tell a browser what a response may do; every response has them."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    # Photos may have any host (`serve.image_url`).
    "img-src 'self' http: https: data: blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",  # searches are a part of the page's URL
}


def add_security_headers(headers: MutableHeaders) -> None:
    """Set them on a response; HTML is the page, which may load its own files and photos."""
    is_page = headers.get("content-type", "").startswith("text/html")
    headers["Content-Security-Policy"] = PAGE_POLICY if is_page else _API_POLICY
    headers.update(_HEADERS)
