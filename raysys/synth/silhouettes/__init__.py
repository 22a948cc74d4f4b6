"""The silhouette of each kind: one function for each kind, which draws a style on a sketch."""

from collections.abc import Callable

from raysys.synth.silhouettes import accessories, bags, clothes, objects, shoes
from raysys.synth.sketch import Sketch

SILHOUETTES: dict[str, Callable[[Sketch, str], None]] = {
    "t-shirt": clothes.t_shirt,
    "hoodie": clothes.hoodie,
    "dress": clothes.dress,
    "skirt": clothes.skirt,
    "trousers": clothes.trousers,
    "shorts": clothes.shorts,
    "sneaker": shoes.sneaker,
    "boot": shoes.boot,
    "heel": shoes.heel,
    "hat": accessories.hat,
    "cap": accessories.cap,
    "watch": accessories.watch,
    "sunglasses": accessories.sunglasses,
    "scarf": accessories.scarf,
    "handbag": bags.handbag,
    "backpack": bags.backpack,
    "tote": bags.tote,
    "mug": objects.mug,
    "teapot": objects.teapot,
    "lamp": objects.lamp,
    "chair": objects.chair,
    "guitar": objects.guitar,
    "camera": objects.camera,
    "toy car": objects.toy_car,
}
