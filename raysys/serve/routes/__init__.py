"""The HTTP routes, one file for each subject. They take what they share from `gateway_state()`."""

from raysys.serve.item_urls import register_item_ids

register_item_ids()  # before a route is declared with `{item_id:item_id}`
