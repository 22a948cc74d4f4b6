"""A marketplace catalogue drawn from a seed: no download, no licence, and a known truth.

`generate_items` decides what is for sale (kind, colour, pattern, seller, title) in well under
a second; `render_item` draws one item's photo, alone and the same in every process. The latent
attributes of a `DrawnItem` are for tests and reports; a model sees photos and titles only.
"""

from raysys.synth.attributes import BACKDROPS, COLOURS, KINDS, PATTERNS
from raysys.synth.items import DrawnItem, generate_items
from raysys.synth.scene import render_item

__all__ = ["BACKDROPS", "COLOURS", "KINDS", "PATTERNS", "DrawnItem", "generate_items", "render_item"]
