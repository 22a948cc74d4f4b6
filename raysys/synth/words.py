"""The words of titles: several for each kind, colour and pattern, in English and Japanese.

As in real titles, there are synonyms and loanwords, and no standard vocabulary.
"""

from typing import NamedTuple


class Words(NamedTuple):
    """The synonyms of one meaning in each language."""

    en: tuple[str, ...]
    ja: tuple[str, ...]


KIND_WORDS: dict[str, Words] = {
    "t-shirt": Words(("t-shirt", "tee", "T shirt"), ("Tシャツ", "ティーシャツ")),
    "hoodie": Words(("hoodie", "hooded sweatshirt", "hoody"), ("パーカー", "フーディー")),
    "dress": Words(("dress", "one-piece dress"), ("ワンピース", "ドレス")),
    "skirt": Words(("skirt",), ("スカート",)),
    "trousers": Words(("trousers", "pants"), ("パンツ", "ズボン")),
    "shorts": Words(("shorts", "short pants"), ("ショートパンツ", "短パン")),
    "sneaker": Words(("sneakers", "trainers", "sneaker"), ("スニーカー", "運動靴")),
    "boot": Words(("boots", "boot"), ("ブーツ",)),
    "heel": Words(("heels", "high heels", "pumps"), ("パンプス", "ハイヒール", "ヒール")),
    "hat": Words(("hat", "brimmed hat"), ("ハット", "つば付き帽子")),
    "cap": Words(("cap", "baseball cap"), ("キャップ", "野球帽")),
    "watch": Words(("watch", "wristwatch"), ("腕時計", "ウォッチ")),
    "sunglasses": Words(("sunglasses", "shades"), ("サングラス",)),
    "scarf": Words(("scarf", "muffler"), ("マフラー", "スカーフ")),
    "handbag": Words(("handbag", "hand bag", "purse"), ("ハンドバッグ", "手提げバッグ")),
    "backpack": Words(("backpack", "rucksack"), ("リュック", "バックパック")),
    "tote": Words(("tote bag", "tote"), ("トートバッグ", "トート")),
    "mug": Words(("mug", "coffee mug"), ("マグカップ", "マグ")),
    "teapot": Words(("teapot", "tea pot"), ("ティーポット", "急須")),
    "lamp": Words(("lamp", "light stand"), ("ランプ", "照明スタンド")),
    "chair": Words(("chair",), ("チェア", "椅子", "イス")),
    "guitar": Words(("guitar",), ("ギター",)),
    "camera": Words(("camera",), ("カメラ",)),
    "toy car": Words(("toy car", "model car"), ("ミニカー", "おもちゃの車")),
}

COLOUR_WORDS: dict[str, Words] = {
    "black": Words(("black", "BLACK"), ("黒", "ブラック")),
    "white": Words(("white", "off-white"), ("白", "ホワイト")),
    "grey": Words(("grey", "gray"), ("グレー", "灰色")),
    "red": Words(("red",), ("赤", "レッド")),
    "pink": Words(("pink",), ("ピンク", "桃色")),
    "orange": Words(("orange",), ("オレンジ", "橙")),
    "yellow": Words(("yellow",), ("黄色", "イエロー")),
    "green": Words(("green",), ("緑", "グリーン")),
    "sky blue": Words(("sky blue", "light blue"), ("水色", "スカイブルー")),
    "navy": Words(("navy", "dark blue"), ("紺", "ネイビー")),
    "purple": Words(("purple", "violet"), ("紫", "パープル")),
    "brown": Words(("brown",), ("茶色", "ブラウン")),
}

PATTERN_WORDS: dict[str, Words] = {
    "plain": Words(("plain", "solid"), ("無地", "シンプル")),
    "stripes": Words(("striped", "stripes", "stripe"), ("ストライプ", "ボーダー")),
    "checks": Words(("checked", "plaid", "gingham"), ("チェック", "格子柄")),
    "dots": Words(("dotted", "polka dot", "dots"), ("ドット", "水玉")),
    "floral": Words(("floral", "flower print"), ("花柄", "フラワー")),
    "gradient": Words(("gradient", "ombre"), ("グラデーション", "ぼかし染め")),
    "two-tone": Words(("two-tone", "bicolour"), ("バイカラー", "ツートン")),
    "logo": Words(("logo", "logo print"), ("ロゴ", "ワンポイント")),
}

# For titles that do not name the kind: words by the first part of the category.
GENERAL_WORDS: dict[str, Words] = {
    "fashion": Words(("fashion item", "nice one"), ("ファッション小物", "おしゃれ")),
    "home": Words(("home goods", "interior"), ("雑貨", "インテリア")),
    "hobby": Words(("hobby stuff", "collection"), ("趣味", "コレクション")),
}

VAGUE_COLOURS = Words(("colorful", "nice color", "see photo for color"), ("きれいな色", "カラー写真参照"))

NOISE_WORDS = Words(
    (
        "SALE",
        "like new",
        "used twice",
        "no box",
        "free shipping",
        "vintage",
        "cheap!!",
        "must go",
        "good condition",
        "unisex",
        "limited",
        "from smoke-free home",
    ),
    (
        "美品",
        "送料無料",
        "新品未使用",
        "値下げ",
        "即購入OK",
        "レア",
        "早い者勝ち",
        "匿名配送",
        "中古",
        "訳あり",
        "【即日発送】",
        "最終値下げ",
        "★美品★",
    ),
)

EMOJI = ("✨", "🎁", "💕", "🌸", "‼️")

# Fictional brands, each in Latin letters and in katakana.
BRANDS = (
    ("Velmori", "ヴェルモリ"),
    ("Kinaro", "キナロ"),
    ("Tosuma", "トスマ"),
    ("Lunvera", "ルンヴェラ"),
    ("Hakotto", "ハコット"),
    ("Brindlo", "ブリンドロ"),
    ("Mizelka", "ミゼルカ"),
    ("Orvanti", "オルヴァンティ"),
    ("Suzuvane", "スズヴェーン"),
    ("Pelloki", "ペロッキ"),
    ("Nordami", "ノルダミ"),
    ("Yumereka", "ユメレカ"),
    ("Cavrello", "カヴレロ"),
    ("Fuwarin", "フワリン"),
    ("Drexomi", "ドレクソミ"),
    ("Tanebiko", "タネビコ"),
)
