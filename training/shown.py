"""The wordings on the contact sheet in the README."""

SHOWN = (
    "a red apple", "smiling cat face", "rocket", "blue heart", "a purple balloon", "pizza", "a green car, 3d", "dog",
    "unicorn", "flat strawberry", "3d robot", "rainbow", "a yellow star", "house", "christmas tree", "penguin, flat",
    "a pink butterfly", "guitar", "sunflower", "ghost", "turquoise circle", "cup of coffee", "3d fox", "dragon",
    "a brown handbag", "birthday cake", "crying face", "panda", "black square", "snowman", "flat whale",
    "an orange mushroom", "thumbs up", "sailboat", "3d red heart", "ice cream", "owl", "cactus", "crown",
    "party popper",
)  # fmt: skip
