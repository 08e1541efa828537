"""Glyphs: which concepts the small web shows, and the drawings of them that six icon families have.

in      the TTF files and JSON name maps of the package `qtawesome`; read as files, Qt is never imported
out     CONCEPTS (names), glyphs(concept, family), mask(glyph): the drawing as an 8-bit coverage mask
law     a concept is drawn by at least four of the five served families and by the test family; no concept's name
        occurs as words inside another's
source  Font Awesome 5 and 6, Material Design, Remix, Codicons, Elusive (served); Phosphor (test set only)
"""

import importlib.util
import json
import os
from dataclasses import dataclass
from functools import cache

from PIL import Image, ImageDraw, ImageFont

SERVED = ("fontawesome", "material", "remix", "codicons", "elusive")
TEST_FAMILY = "phosphor"
MASK_PX = 128  # the masks are drawn once at this size and made smaller from there

# family -> (TTF, name map) pairs and the endings that name a style of the same drawing
FONTS: dict[str, tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "fontawesome": (
        (
            ("fontawesome6-solid-webfont-6.7.2.ttf", "fontawesome6-solid-webfont-charmap-6.7.2.json"),
            ("fontawesome6-regular-webfont-6.7.2.ttf", "fontawesome6-regular-webfont-charmap-6.7.2.json"),
            ("fontawesome5-solid-webfont-5.15.4.ttf", "fontawesome5-solid-webfont-charmap-5.15.4.json"),
            ("fontawesome5-regular-webfont-5.15.4.ttf", "fontawesome5-regular-webfont-charmap-5.15.4.json"),
        ),
        ("",),
    ),
    "material": (
        (("materialdesignicons6-webfont-6.9.96.ttf", "materialdesignicons6-webfont-charmap-6.9.96.json"),),
        ("", "-outline"),
    ),
    "remix": ((("remixicon-2.5.0.ttf", "remixicon-charmap-2.5.0.json"),), ("", "-line", "-fill")),
    "codicons": ((("codicon-0.0.36.ttf", "codicon-charmap-0.0.36.json"),), ("",)),
    "elusive": ((("elusiveicons-webfont-2.0.ttf", "elusiveicons-webfont-charmap-2.0.json"),), ("",)),
    "phosphor": ((("phosphor-1.3.0.ttf", "phosphor-charmap-1.3.0.json"),), ("", "-light", "-bold", "-fill")),
}

# concept | Font Awesome | Material Design | Remix | Codicons | Elusive | Phosphor; "." where a family has none
TABLE = """
down arrow|arrow-down|arrow-down|arrow-down|arrow-down|arrow-down|arrow-down
left arrow|arrow-left|arrow-left|arrow-left|arrow-left|arrow-left|arrow-left
right arrow|arrow-right|arrow-right|arrow-right|arrow-right|arrow-right|arrow-right
up arrow|arrow-up|arrow-up|arrow-up|arrow-up|arrow-up|arrow-up
bell|bell|bell|notification notification-2 notification-3|bell|bell|bell bell-simple
book|book|book|book|book|book|book
bookmark|bookmark|bookmark|bookmark|bookmark|bookmark|bookmark bookmark-simple
briefcase|briefcase|briefcase|briefcase briefcase-2 briefcase-3 briefcase-4|briefcase|briefcase|briefcase
calendar|calendar calendar-days|calendar|calendar calendar-2|calendar|calendar|calendar
check mark|check|check|check|check|ok|check
cloud|cloud|cloud|cloud|cloud|cloud|cloud
compass|compass|compass|compass compass-3|compass|compass|compass
folder|folder|folder|folder folder-2 folder-3|folder|folder folder-close|folder folder-simple
gift box|gift|gift|gift gift-2|gift|gift|gift
heart|heart|heart|heart heart-2 heart-3|heart|heart heart-empty|heart heart-straight
key|key|key|key key-2|key|key|key
chain link|link|link|link|link|link|link link-simple
closed padlock|lock|lock|lock lock-2|lock|lock|lock lock-simple
open padlock|lock-open unlock|lock-open|lock-unlock|unlock|unlock|lock-open lock-simple-open
pencil|pencil pencil-alt|pencil|pencil|pencil edit|pencil|pencil pencil-simple
play symbol|play|play|play|play debug-start|play|play
news feed|rss|rss|rss|rss|rss|rss rss-simple
star|star|star|star|star-full star-empty|star star-empty|star
asterisk|asterisk|asterisk|asterisk|.|asterisk|asterisk
barcode|barcode|barcode|barcode|.|barcode|barcode
bug|bug|bug|bug bug-2|bug|.|bug bug-beetle
photo camera|camera|camera|camera camera-3|device-camera|camera|camera
car|car|car|car|.|car|car
credit card|credit-card|credit-card|bank-card bank-card-2|credit-card|credit-card|credit-card
database|database|database|database-2|database|.|database
eject symbol|eject|eject|eject|.|eject|eject
open eye|eye|eye|eye|eye|eye-open|eye
flame|fire|fire|fire|flame|fire|fire flame
flag|flag|flag|flag flag-2|.|flag|flag
globe|globe|web|global|globe|globe globe-alt|globe
leaf|leaf|leaf|leaf|.|leaf|leaf
light bulb|lightbulb|lightbulb|lightbulb|light-bulb lightbulb|idea bulb|lightbulb
magnet|magnet|magnet|.|magnet|magnet|magnet magnet-straight
pause symbol|pause|pause|pause|debug-pause|pause|pause
telephone|phone|phone|phone|.|phone|phone
plus sign|plus|plus|add|add|plus|plus
question mark|question-circle circle-question|help-circle|question|question|question-sign|question
robot|robot|robot|robot|hubot robot|.|robot
rocket|rocket|rocket rocket-launch|rocket rocket-2|rocket|.|rocket rocket-launch
shield|shield shield-alt|shield|shield|shield|.|shield
price tag|tag|tag|price-tag-3 price-tag|tag|tag|tag tag-simple
wheelchair|wheelchair|wheelchair-accessibility|wheelchair|.|wheelchair|wheelchair
wrench|wrench|wrench|.|wrench|wrench|wrench
trash can|trash trash-can|trash-can delete|delete-bin delete-bin-5 delete-bin-6|trash trashcan|trash|trash trash-simple
house|home house|home|home home-2 home-5|home|home|house house-line house-simple
magnifying glass|search magnifying-glass|magnify|search search-2|search|search|magnifying-glass
gear|cog gear|cog|settings-3|gear settings-gear|cog|gear gear-six
envelope|envelope|email|mail|mail|envelope|envelope envelope-simple
clock|clock|clock|time|.|time|clock
person|user|account|user user-3|account person|user|user
scissors|scissors cut|content-cut|scissors|.|scissors|scissors
headphones|headphones|headphones|headphone|.|headphones|headphones
shopping cart|shopping-cart cart-shopping|cart|shopping-cart shopping-cart-2|.|shopping-cart|shopping-cart shopping-cart-simple
thumbs up|thumbs-up|thumb-up|thumb-up|thumbsup|thumbs-up|thumbs-up
thumbs down|thumbs-down|thumb-down|thumb-down|thumbsdown|thumbs-down|thumbs-down
warning triangle|exclamation-triangle triangle-exclamation|alert|alert|warning|warning-sign|warning
information sign|info-circle circle-info|information|information|info|info-circle|info
cross mark|times xmark|close|close|close|remove|x
microphone|microphone|microphone|mic mic-2|mic|mic|microphone
music note|music|music|music-2|music|music|music-note music-notes music-notes-simple
video camera|video|video|vidicon|device-camera-video|facetime-video|video-camera
film strip|film|filmstrip|film|.|film|film-strip
megaphone|bullhorn|bullhorn|.|megaphone|bullhorn|megaphone megaphone-simple
paper clip|paperclip|paperclip|attachment-2|.|paper-clip|paperclip
map pin|map-marker location-dot|map-marker|map-pin map-pin-2|location|map-marker|map-pin
airplane|plane|airplane|plane|.|plane|airplane
printer|print|printer|printer|.|print|printer
qr code|qrcode|qrcode|qr-code|.|qrcode|qr-code
laptop|laptop|laptop|macbook|.|laptop|laptop
smartphone|mobile mobile-screen mobile-screen-button|cellphone|smartphone|device-mobile|.|device-mobile device-mobile-speaker
smiley face|smile face-smile|emoticon-happy|emotion emotion-happy|smiley|smiley|smiley
refresh arrows|sync arrows-rotate|sync|refresh|sync|refresh|arrows-clockwise
loud speaker|volume-up volume-high|volume-high|volume-up|unmute|volume-up|speaker-high speaker-simple-high
funnel|filter|filter|filter filter-2|filter|filter|funnel
speech bubble|comment|comment chat message|chat-1 chat-3 message-2|comment|comment|chat chat-circle chat-centered
floppy disk|save floppy-disk|content-save|save save-2|save|.|floppy-disk floppy-disk-back
target|bullseye|target bullseye|focus focus-2 focus-3|target|.|target
flask|flask|flask|flask|beaker|.|flask
coffee cup|coffee mug-saucer mug-hot|coffee|cup|coffee|.|coffee
balance scales|balance-scale scale-balanced|scale-balance|scales scales-3|law|.|scales
lightning bolt|bolt|flash lightning-bolt|flashlight|zap|.|lightning
pie chart|chart-pie|chart-pie|pie-chart pie-chart-2|pie-chart|.|chart-pie chart-pie-slice
bar chart|chart-bar|chart-bar|bar-chart bar-chart-2|graph|.|chart-bar
line chart|chart-line|chart-line|line-chart|graph-line|.|chart-line chart-line-up
push pin|thumbtack|pin|pushpin pushpin-2|pin|.|push-pin push-pin-simple
quotation marks|quote-left|format-quote-open|double-quotes-l|quote|quotes quote-right|quotes
paper plane|paper-plane|send|send-plane send-plane-2|send|.|paper-plane paper-plane-right paper-plane-tilt
power button|power-off|power|shut-down|.|off|power
at sign|at|at|at|mention|.|at
percent sign|percent percentage|percent|percent|percentage|.|percent
framed landscape|image|image|image|file-media|picture|image image-square
water drop|tint droplet|water|drop|.|tint|drop
paintbrush|paint-brush paintbrush|brush|brush brush-2|.|brush|paint-brush
gauge|tachometer gauge gauge-high|gauge speedometer|dashboard-3|dashboard|dashboard|gauge
microchip|microchip|chip memory|cpu|chip|.|cpu
palette|palette|palette|palette|symbol-color|.|palette
ruler|ruler|ruler|ruler|symbol-ruler|.|ruler
game controller|gamepad|controller gamepad-variant|gamepad|game|.|game-controller
shirt|tshirt shirt|tshirt-crew|t-shirt t-shirt-2|jersey|.|t-shirt
gemstone|gem|diamond-stone|vip-diamond|ruby|.|sketch-logo
"""


@dataclass(frozen=True, slots=True)
class Glyph:
    """One drawing: a character of a font file."""

    family: str
    font: str  # file name
    name: str
    code: int


def _folder() -> str:
    spec = importlib.util.find_spec("qtawesome")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("infra.mini: the package qtawesome carries the glyphs; install it")
    return os.path.join(spec.submodule_search_locations[0], "fonts")


@cache
def _names(charmap: str) -> dict[str, int]:
    with open(os.path.join(_folder(), charmap), encoding="utf-8") as file:
        return {name: int(code, 16) for name, code in json.load(file).items()}


@cache
def _table() -> dict[str, dict[str, tuple[str, ...]]]:
    rows = [line.split("|") for line in TABLE.strip().splitlines()]
    families = (*SERVED, TEST_FAMILY)
    names = [[tuple(cell.replace(".", "").split()) for cell in row[1:]] for row in rows]
    return {row[0]: dict(zip(families, cells, strict=True)) for row, cells in zip(rows, names, strict=True)}


@cache
def glyphs(concept: str, family: str) -> tuple[Glyph, ...]:
    """The drawings of a concept in a family; empty where the family has none. KeyError for an unknown concept."""
    fonts, endings = FONTS[family]
    found = [
        Glyph(family, font, name + ending, _names(charmap)[name + ending])
        for name in _table()[concept][family]
        for font, charmap in fonts
        for ending in endings
        if name + ending in _names(charmap)
    ]
    return tuple(dict.fromkeys(found))


def families_of(concept: str) -> tuple[str, ...]:
    """The served families that draw the concept."""
    return tuple(family for family in SERVED if glyphs(concept, family))


def concepts() -> tuple[str, ...]:
    """All concepts, in the order of the table."""
    return tuple(_table())


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(os.path.join(_folder(), name), MASK_PX)


@cache
def mask(glyph: Glyph) -> Image.Image:
    """The glyph's coverage, cropped to what is drawn; mode L, longer side about MASK_PX."""
    canvas = Image.new("L", (2 * MASK_PX, 2 * MASK_PX))
    ImageDraw.Draw(canvas).text((MASK_PX, MASK_PX), chr(glyph.code), fill=255, font=_font(glyph.font), anchor="mm")
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"infra.mini: {glyph.font} draws nothing for {glyph.name}")
    return canvas.crop(box)
