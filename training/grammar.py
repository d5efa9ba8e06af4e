"""Ways of asking for a picture, put together at random: {n} is the name, {a} the name with its article, {s} its plural.

A way of asking is a request, the thing asked for as a phrase with the style anywhere in it, and an ending; each may be
missing. Made-up words now and then stand where a word says nothing about the thing, so that words never met there do
not matter.
"""

from __future__ import annotations

import random

from kept_back import WITHHELD, contains_kept_back

REQUESTS = (
    "draw", "paint", "show", "show us", "make", "make me", "create", "give me", "get me", "find me", "send me", "do",
    "bring me", "design", "print", "display", "illustrate", "draw me", "paint me", "build", "compose", "add", "try",
    "depict", "prepare", "render", "form", "provide", "i want you to draw", "help me draw", "try to make",
    "i would like to see", "i want to see", "we want", "i would like", "i'd like", "i'm looking for", "i wish for",
    "how about", "this is", "that is", "it is", "it's", "there is", "here you see", "here comes", "see",
    "this shows", "only", "simply", "once more", "now", "again", "next", "first", "we would like", "they want", "my",
    "is this", "where is", "who has", "think of", "remember", "icon:", "emoji:", "picture:", "prompt:",
    "subject:", "thing:", "one", "with", "about", "for", "and", "of", "like",
)  # fmt: skip
POLITE = (
    "please", "could you", "can you", "would you", "will you", "kindly", "hey,", "hello,", "hi,", "ok,", "now", "so",
    "please could you", "can you please", "you should", "quickly", "well,", "oh,", "dear computer,",
)  # fmt: skip
VERBS = ("draw", "paint", "make", "create", "show", "design", "print", "do", "render", "illustrate", "depict", "send")
PICTURES = (
    "picture", "image", "icon", "drawing", "painting", "illustration", "sticker", "emoji", "symbol", "clipart",
    "cartoon", "graphic", "print", "photo", "pictogram", "figure", "emblem", "pic", "avatar", "thumbnail", "artwork",
    "glyph", "sprite", "depiction", "sign", "view", "rendering", "smiley", "motif", "shot", "design", "version",
)  # fmt: skip
LINKS = ("of", "of", "of", "of", "showing", "with", "depicting", "that shows", "for", "containing", "featuring")
ADJECTIVES = (
    "nice", "little", "cute", "simple", "small", "big", "beautiful", "pretty", "good", "great", "plain", "single",
    "perfect", "charming", "wonderful", "ordinary", "typical", "normal", "decent", "splendid", "neat", "large", "fine",
    "friendly", "elegant", "basic", "detailed", "amazing", "short", "quick", "colourful", "usual", "real", "classic",
    "mini", "proper", "delightful", "gorgeous", "wee", "very nice", "really good", "rather small",
)  # fmt: skip
ENDINGS = (
    "please", "for me", "for us", "for my friend", "for a card", "for my page", "right now", "now", "thanks",
    "thank you", "today", "if you can", "if possible", "on white", "on a white background", "in the centre",
    "in the center", "in the middle of the page", "in the picture", "alone", "without text", "for the kids", "again",
    "in high quality", "in colour", "up close", "as a picture", "as an icon", "as an emoji", "as a sticker",
    "as a symbol", "as an image", "as a drawing", "as an illustration", "emoji style", "on the page", "on its own",
    "only", "here", "there", "you know", "of course", "my dear", "in front", "as usual", "by you", "over there",
    "as you like", "and that is all", "to print", "to send", "for a message", "on a blank background",
)  # fmt: skip
STYLES = {"flat": ("flat",), "3d": ("3d", "3d", "3d", "3d", "three-dimensional")}
STYLE_ENDINGS = (
    "{f}", ", {f}", "in {f}", "in {f} style", "in a {f} style", ", {f} style", ", {f} design", "in {f} design",
    "as a {f} {p}", "as a {f} {p}", "as a {f} {p}", "as {f} art", "as {f} {p}", "drawn in {f}", "drawn in {f} style",
    "rendered {f}", "rendered as {f}", "made {f}", "made in {f}", "painted in {f} style", "looking {f}",
    "shown in {f}", "shown as a {f} {p}", "done in {f}", "designed {f}", "in the {f} style", "with {f} design",
    "of {f} kind", "but {f}", "and {f}", "which is {f}", "{f} version", "{f} emoji", "{f} icon", "{f} art",
    "in form of a {f} {p}", "like a {f} {p}", "the {f} way", "the {f} one", ", make it {f}", ", {f} please",
    "in {f} emoji style", "from the {f} set", "{f} {p}", ", a {f} {p}", ", as a {f} {p}",
)  # fmt: skip
SOUNDS = ("b", "br", "d", "dr", "f", "fl", "g", "gr", "k", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr", "v", "")
VOWELS = ("a", "e", "i", "o", "u", "oo", "ea", "ai")


def template(style: str, random_: random.Random) -> str:
    """A way of asking for `style` ("" for none) that neither is nor contains one kept back."""
    while True:
        made = " ".join(composed(style, random_).replace(" ,", ",").split())
        if not contains_kept_back(made):
            return made


def composed(style: str, random_: random.Random) -> str:
    choice, chance = random_.choice, random_.random
    adjective = f"{word(ADJECTIVES, random_)} " if chance() < 0.25 else ""
    thing, of_thing = named(adjective, random_), chance() < 0.35
    if style:
        form, place = choice(STYLES[style]), chance()
        if of_thing and place < 0.4:
            thing = f"{article(adjective + form, random_)} {picture(random_)} {choice(LINKS)} {named('', random_)}"
        elif place < 0.5:
            thing = choice((f"{adjective}{form} {{n}}", f"a {adjective}{form} {{n}}", f"a {form} {adjective}{{n}}"))
            thing = choice((thing, thing, f"{form} style {{n}}", f"{form} design {{n}}", f"{form} {{s}}"))
        else:
            thing = f"{thing} {choice(STYLE_ENDINGS)}".replace("{p}", picture(random_)).replace("{f}", form)
            of_thing = of_thing and chance() < 0.3
            thing = f"{article(picture(random_), random_)} {choice(LINKS)} {thing}" if of_thing else thing
    elif of_thing:
        kind = article(adjective + picture(random_), random_)
        thing = choice((f"{kind} {choice(LINKS)} {named('', random_)}",) * 3 + (f"{thing} {picture(random_)}",))
    return f"{request(random_)} {thing}{ending(random_)}"


def request(random_: random.Random) -> str:
    draw = random_.random()
    if draw < 0.4:
        return ""
    if draw < 0.75:
        return word(REQUESTS, random_)
    return f"{random_.choice(POLITE)} {word(VERBS, random_)}{random_.choice((' me', ' us', '', '', ''))}"


def ending(random_: random.Random) -> str:
    draw = random_.random()
    if draw < 0.7:
        return ""
    return f"{random_.choice((' ', ', '))}{word(ENDINGS, random_)}{random_.choice(('', '', '!', '.', '?'))}"


def picture(random_: random.Random) -> str:
    return word(PICTURES, random_)


def named(adjective: str, random_: random.Random) -> str:
    """The thing: bare, with an article, now and then in the plural."""
    if adjective:
        return random_.choice((f"{article(adjective, random_)}{{n}}", f"{adjective}{{n}}"))
    return random_.choice(("{a}",) * 11 + ("{n}",) * 6 + ("the {n}", "one {n}", "some {s}", "{s}"))


def article(phrase: str, random_: random.Random) -> str:
    indefinite = "an" if phrase[0] in "aeiou" else "a"
    return f"{random_.choice(('the', indefinite, indefinite))} {phrase}"


def word(words: tuple[str, ...], random_: random.Random) -> str:
    """One of the words, or a made-up one."""
    if random_.random() > 0.08:
        return random_.choice(words)
    made = "".join(random_.choice(SOUNDS) + random_.choice(VOWELS) for _ in range(random_.randint(1, 3)))
    made += random_.choice(("", "n", "r", "st", "t"))
    return word(words, random_) if made in WITHHELD else made


ALL_WORDS = {
    part.strip(",:!?.{}")
    for group in (REQUESTS, POLITE, VERBS, PICTURES, LINKS, ADJECTIVES, ENDINGS, STYLE_ENDINGS)
    for phrase in group
    for part in phrase.split()
}
assert not ALL_WORDS & WITHHELD, f"a word withheld for the test: {ALL_WORDS & WITHHELD}"
