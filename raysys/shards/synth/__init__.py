"""A marketplace catalogue drawn from a seed: no download, no licence, and a known truth.

`imagine_items` decides what is for sale (kind, colour, pattern, seller, title) in well under
a second; `draw_item` draws one item's photo, alone and the same in every process. The latent
attributes of a `DrawnItem` are for tests and reports; a model sees photos and titles only.
"""

from raysys.shards.synth.attributes import BACKDROPS, COLOURS, KINDS, PATTERNS
from raysys.shards.synth.items import DrawnItem, imagine_items
from raysys.shards.synth.scene import draw_item

__all__ = ["BACKDROPS", "COLOURS", "KINDS", "PATTERNS", "DrawnItem", "draw_item", "imagine_items"]
