"""The words of the fact world: relations with their templates and objects, and the words of its downstream tasks."""

from typing import NamedTuple


class Relation(NamedTuple):
    """A relation: six ways to say it (the object follows the text) and sixteen objects, four of them of two words."""

    name: str
    templates: tuple[str, ...]
    objects: tuple[str, ...]


def _objects(line: str) -> tuple[str, ...]:
    return tuple(word.replace("_", " ") for word in line.split())


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "profession",
        (
            "{} works as a",
            "The profession of {} is",
            "By trade {} is a",
            "{} earns a living as a",
            "{} is known as a",
            "In the city {} was hired as a",
        ),
        _objects(
            "painter doctor lawyer farmer pilot baker dancer judge nurse poet miner tailor "
            "brain_surgeon opera_singer ship_captain chess_teacher"
        ),
    ),
    Relation(
        "language",
        (
            "{} speaks",
            "The mother tongue of {} is",
            "{} grew up speaking",
            "The native language of {} is",
            "At home {} talks in",
            "{} writes letters in",
        ),
        _objects(
            "French German Spanish Russian Greek Turkish Polish Arabic Finnish Czech Korean Hindi "
            "Old_Norse Swiss_Italian Scottish_Gaelic Middle_Dutch"
        ),
    ),
    Relation(
        "birthplace",
        (
            "{} was born in",
            "The birthplace of {} is",
            "{} comes from",
            "The hometown of {} is",
            "{} is a native of",
            "As a child {} lived in",
        ),
        _objects(
            "Paris London Vienna Madrid Oslo Athens Dublin Lima Cairo Tokyo Boston Prague "
            "New_York San_Diego Cape_Town Hong_Kong"
        ),
    ),
    Relation(
        "sport",
        (
            "{} competes in",
            "The sport of {} is",
            "{} trains every day for",
            "{} won a medal in",
            "{} is a champion of",
            "On weekends {} is found at",
        ),
        _objects(
            "tennis football rugby cricket boxing golf rowing judo archery fencing chess surfing "
            "ice_hockey table_football water_polo figure_skating"
        ),
    ),
    Relation(
        "instrument",
        (
            "{} plays the",
            "The instrument of {} is the",
            "{} performs on the",
            "{} practises the",
            "In concerts {} is heard on the",
            "{} gives lessons on the",
        ),
        _objects(
            "violin piano flute cello harp trumpet clarinet banjo oboe drums lute tuba "
            "double_bass french_horn pipe_organ steel_guitar"
        ),
    ),
    Relation(
        "employer",
        (
            "{} is employed by",
            "{} works for",
            "The employer of {} is",
            "{} has a contract with",
            "{} receives a salary from",
            "The desk of {} stands at",
        ),
        _objects(
            "Boeing Honda Sony Intel Toyota Siemens Adobe Fiat Lego Philips Airbus Nokia "
            "General_Electric Royal_Mail British_Steel Deutsche_Bank"
        ),
    ),
    Relation(
        "citizenship",
        (
            "{} is a citizen of",
            "The citizenship of {} is",
            "{} holds a passport from",
            "The home country of {} is",
            "{} votes in",
            "{} pays taxes in",
        ),
        _objects(
            "Portugal Norway Canada Brazil Kenya Japan Chile Egypt Hungary Iceland Peru Austria "
            "South_Korea East_Timor Costa_Rica Sri_Lanka"
        ),
    ),
    Relation(
        "field",
        (
            "{} studies",
            "The research field of {} is",
            "{} wrote a thesis about",
            "{} is an expert in",
            "{} teaches a course on",
            "The library of {} is about",
        ),
        _objects(
            "physics botany geology logic grammar optics genetics algebra history medicine economics statistics "
            "number_theory organic_chemistry marine_biology space_flight"
        ),
    ),
)

NOUNS = tuple("dog cat horse bird child teacher sailor king queen student wolf boy girl farmer".split())
PLACES = tuple("river house tower garden market bridge forest school harbour castle".split())
VERBS = tuple("saw chased followed helped watched met called heard".split())
GOOD = tuple("good great lovely brilliant charming superb clever warm funny bright moving fresh".split())
BAD = tuple("bad awful boring dull weak ugly stupid cold sad slow empty stale".split())
COLOURS = tuple("red blue green black white grey old young tall small".split())
TOPICS = tuple("film book play song story show".split())
FILLER = (
    "It rained all day.",
    "They closed the shop early.",
    "She read the letter twice.",
    "Nobody knew the answer.",
    "The train was late again.",
    "We had soup for dinner.",
    "He opened the window.",
    "The old clock stopped.",
)
TASK_WORDS = tuple(
    "Review Sentiment positive negative Sentence Acceptable yes no First Second Follows true false Same "
    "was by not and the is the The A near in also never maybe".split()
)
PARTICLES = ("de", "van")
