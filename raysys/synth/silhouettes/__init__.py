"""The silhouette of each kind: one function for each kind, which draws a style on a sketch."""

from collections.abc import Callable

from raysys.synth.silhouettes import bags, clothes, objects, shoes, worn
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
    "hat": worn.hat,
    "cap": worn.cap,
    "watch": worn.watch,
    "sunglasses": worn.sunglasses,
    "scarf": worn.scarf,
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
