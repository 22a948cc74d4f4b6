"""The drawn catalogue: a synthetic marketplace from a seed, without downloads and with known ground truth.

`generate_items` generates the items (kind, colour, pattern, seller, title, price); 3,000 take less than a
second. `render_item` draws the photo of one item; it needs no other item and returns the same bytes in every
process. `catalog.draw_catalog` writes both as a table with photos, in the form that a user would bring.

A model sees photos, titles and the public columns. The latent attributes (kind, colour, pattern, style) are
for simulated logs, tests and reports.

Modules in reading order: `attributes` (possible values), `sellers`, `words` and `titles`, `items`; then the
drawing: `sketch` (shapes as materials), `silhouettes` (one function for each kind), `patterns`, `painting`
(materials to colours), `backdrops`, `clutter`, `scene` (the complete photo); `catalog` writes the files.
"""

from raysys.synth.attributes import BACKDROPS, COLOURS, KINDS, PATTERNS
from raysys.synth.items import DrawnItem, generate_items
from raysys.synth.scene import render_item

__all__ = ["BACKDROPS", "COLOURS", "KINDS", "PATTERNS", "DrawnItem", "generate_items", "render_item"]
