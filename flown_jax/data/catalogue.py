"""The image sets that the library knows: sizes, classes and official counts.

Names, versions and features are those of TensorFlow Datasets where it has the set; `usps` and
`mini_imagenet` are ours, in the same form. Those in EMBEDDED are part of the library and need no
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flown_jax.data.glyph_sets import GLYPH_SETS, IMAGES_PER_CLASS
from flown_jax.errors import UserError

EMBEDDED = ("digits", *GLYPH_SETS)


@dataclass(frozen=True)
class Facts:
    """What is official about an image set.

    Attributes:
      name, version: of the folder NAME/VERSION that holds it.
      side: of an image, pixels; channels: 1 or 3.
      class_names: name of class i at index i.
      counts: number of images of each split.
      optional: splits that a folder may lack.
      unlabelled: splits whose labels are all -1.
      id_digits: width of the number in an image's text id; 0 where the set has no ids.
      coarse: number of coarse classes; 0 where there are none.
      class_ids: an official id a class (WordNet), or empty.
      class_splits: the classes of each split, where splits share no class.
    """

    name: str
    version: str
    side: int
    channels: int
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    optional: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    id_digits: int = 0
    coarse: int = 0
    class_ids: tuple[str, ...] = ()
    class_splits: Mapping[str, range] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def classes_of(self, split: str) -> range:
        """The classes whose images are in a split."""
        return self.class_splits.get(split, range(self.classes))


def facts(name: str) -> Facts:
    """What is official about the image set `name`.

    Raises:
      UserError: an unknown set; those at hand are named.
    """
    if name not in CATALOGUE:
        raise UserError(
            f"there is no image set {name!r}; the sets at hand are {', '.join(CATALOGUE)}."
        )
    return CATALOGUE[name]


_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_STL10 = "airplane bird car cat deer dog horse monkey ship truck"
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
# mini-ImageNet's 64 / 16 / 20 classes: WordNet numbers and names.
_MINI_TRAIN = """
    01532829 house finch, 01558993 robin, 01704323 triceratops, 01749939 green mamba, 01770081
    harvestman, 01843383 toucan, 01910747 jellyfish, 02074367 dugong, 02089867 Walker hound,
    02091831 Saluki, 02101006 Gordon setter, 02105505 komondor, 02108089 boxer, 02108551 Tibetan
    mastiff, 02108915 French bulldog, 02111277 Newfoundland, 02113712 miniature poodle, 02120079
    Arctic fox, 02165456 ladybug, 02457408 three-toed sloth, 02606052 rock beauty, 02687172
    aircraft carrier, 02747177 ashcan, 02795169 barrel, 02823428 beer bottle, 02966193 carousel,
    03017168 chime, 03047690 clog, 03062245 cocktail shaker, 03207743 dishrag, 03220513 dome,
    03337140 file, 03347037 fire screen, 03400231 frying pan, 03476684 hair slide, 03527444
    holster, 03676483 lipstick, 03838899 oboe, 03854065 organ, 03888605 parallel bars, 03908618
    pencil box, 03924679 photocopier, 03998194 prayer rug, 04067472 reel, 04243546 slot, 04251144
    snorkel, 04258138 solar dish, 04275548 spider web, 04296562 stage, 04389033 tank, 04435653
    tile roof, 04443257 tobacco shop, 04509417 unicycle, 04515003 upright, 04596742 wok, 04604644
    worm fence, 04612504 yawl, 06794110 street sign, 07584110 consomme, 07697537 hotdog, 07747607
    orange, 09246464 cliff, 13054560 bolete, 13133613 ear
"""
_MINI_VALIDATION = """
    01855672 goose, 02091244 Ibizan hound, 02114548 white wolf, 02138441 meerkat, 02174001
    rhinoceros beetle, 02950826 cannon, 02971356 carton, 02981792 catamaran, 03075370 combination
    lock, 03417042 garbage truck, 03535780 horizontal bar, 03584254 iPod, 03770439 miniskirt,
    03773504 missile, 03980874 poncho, 09256479 coral reef
"""
_MINI_TEST = """
    01930112 nematode, 01981276 king crab, 02099601 golden retriever, 02110063 malamute, 02110341
    dalmatian, 02116738 African hunting dog, 02129165 lion, 02219486 ant, 02443484 black-footed
    ferret, 02871525 bookshop, 03127925 crate, 03146219 cuirass, 03272010 electric guitar,
    03544143 hourglass, 03775546 mixing bowl, 04146614 school bus, 04149813 scoreboard, 04418357
    theater curtain, 04522168 vase, 07613480 trifle
"""
_MINI = [
    entry.split(maxsplit=1)
    for part in (_MINI_TRAIN, _MINI_VALIDATION, _MINI_TEST)
    for entry in " ".join(part.split()).split(", ")
]


def _grey28(name: str, class_names: tuple[str, ...]) -> Facts:
    return Facts(name, "3.0.1", 28, 1, class_names, {"train": 60_000, "test": 10_000})


def _glyphs(name: str) -> Facts:
    drawn = GLYPH_SETS[name]
    counts = {split: len(drawn.names) * count for split, count in IMAGES_PER_CLASS.items()}
    return Facts(name, "", 28, drawn.channels, drawn.names, counts)


CATALOGUE: dict[str, Facts] = {
    entry.name: entry
    for entry in (
        _grey28("mnist", _DIGITS),
        _grey28("fashion_mnist", _FASHION),
        _grey28("kmnist", _KUZUSHIJI),
        Facts("usps", "1.0.0", 16, 1, _DIGITS, {"train": 7_291, "test": 2_007}),
        Facts(
            "svhn_cropped",
            "3.1.0",
            32,
            3,
            _DIGITS,
            {"train": 73_257, "test": 26_032, "extra": 531_131},
            optional=("extra",),
            id_digits=6,
        ),
        Facts(
            "cifar10",
            "3.0.2",
            32,
            3,
            tuple(_CIFAR10.split()),
            {"train": 50_000, "test": 10_000},
            id_digits=5,
        ),
        Facts(
            "cifar100",
            "3.0.2",
            32,
            3,
            tuple(_CIFAR100.split()),
            {"train": 50_000, "test": 10_000},
            id_digits=5,
            coarse=20,
        ),
        Facts(
            "stl10",
            "1.0.0",
            96,
            3,
            tuple(_STL10.split()),
            {"train": 5_000, "test": 8_000, "unlabelled": 100_000},
            optional=("unlabelled",),
            unlabelled=("unlabelled",),
        ),
        Facts(
            "mini_imagenet",
            "1.0.0",
            84,
            3,
            tuple(name for _, name in _MINI),
            {"train": 38_400, "validation": 9_600, "test": 12_000},
            class_ids=tuple(f"n{number}" for number, _ in _MINI),
            class_splits={
                "train": range(64),
                "validation": range(64, 80),
                "test": range(80, 100),
            },
        ),
        Facts("digits", "", 28, 1, _DIGITS, {"train": 1_200, "test": 597}),
        *(_glyphs(name) for name in GLYPH_SETS),
    )
}
