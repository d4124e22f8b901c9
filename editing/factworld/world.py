"""A generated world of facts: invented people, eight relations, and prompts for editing, locality and second moments.

Everything is a function of the seed.  Subjects fall into three groups: *reserved* subjects, whose facts the models
know and which serve only as neighborhood prompts; *known* subjects, whose facts the models know and which may be
edited; and the rest, which no bundled model has seen.
"""

import random
from dataclasses import dataclass
from functools import cached_property, lru_cache

from editing.factworld.vocabulary import COLOURS, FILLER, NOUNS, PARTICLES, PLACES, RELATIONS, VERBS, Relation
from editing.requests import EditRequest

N_TRAINED_TEMPLATES = 4
N_NEIGHBORHOOD_PROMPTS = 10


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One (subject, relation, object); the other two of its relation's six templates never appear in training."""

    subject: str
    relation: Relation
    object: str
    trained_templates: tuple[str, ...]
    held_out_templates: tuple[str, ...]

    def sentence(self, rng: random.Random) -> tuple[str, str]:
        """Return (prompt, object) in one of the trained templates."""
        return rng.choice(self.trained_templates).replace("{}", self.subject), self.object


@dataclass(frozen=True, kw_only=True)
class World:
    """The fact world of one seed.

    Raises:
        ValueError: The sizes ask for more subjects than there are names, or more known subjects than subjects.
    """

    seed: int = 0
    n_subjects: int = 3000
    n_known: int = 800
    """Subjects whose facts the bundled models are trained on, beside the reserved ones."""
    n_reserved: int = 192
    """Subjects that are never edited; 192 gives every (relation, object) exactly three of them."""

    def __post_init__(self) -> None:
        if self.n_known + self.n_reserved > self.n_subjects:
            raise ValueError(
                f"the world has {self.n_subjects} subjects, fewer than {self.n_known} known + "
                f"{self.n_reserved} reserved ones; raise n_subjects"
            )
        if self.n_subjects > MAX_SUBJECTS:
            raise ValueError(f"n_subjects is {self.n_subjects}; there are names for {MAX_SUBJECTS} subjects")

    @cached_property
    def name_words(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """First names, last names and mononyms: invented words that occur nowhere else."""
        return _name_words()

    @cached_property
    def subjects(self) -> tuple[str, ...]:
        """All subjects: 5 % of one word, 60 % of two, 35 % of three (``A de B``); reserved ones come first."""
        rng = random.Random(f"subjects-{self.seed}")
        first, last, mononyms = self.name_words
        two = [f"{a} {b}" for a in first for b in last]
        three = [f"{a} {particle} {b}" for a in first for particle in PARTICLES for b in last]
        n_one, n_three = self.n_subjects // 20, self.n_subjects * 7 // 20
        n_two = self.n_subjects - n_one - n_three
        chosen = rng.sample(mononyms, n_one) + rng.sample(two, n_two) + rng.sample(three, n_three)
        rng.shuffle(chosen)
        return tuple(chosen)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Two facts per subject, of different relations, in the order of the subjects."""
        return _facts(self)

    def _pairs(self, index: int, rng: random.Random) -> list[tuple[Relation, str]]:
        if index < self.n_reserved:  # round robin, so that every (relation, object) has reserved neighbours
            cells = [(relation, o) for o in range(16) for relation in RELATIONS]
            chosen = [cells[(2 * index + k) % len(cells)] for k in range(2)]
            return [(relation, relation.objects[o]) for relation, o in chosen]
        return [(relation, rng.choice(relation.objects)) for relation in rng.sample(RELATIONS, 2)]

    @property
    def reserved_facts(self) -> tuple[Fact, ...]:
        return self.facts[: 2 * self.n_reserved]

    @property
    def known_facts(self) -> tuple[Fact, ...]:
        """The facts that bundled models know and that may be edited."""
        return self.facts[2 * self.n_reserved : 2 * (self.n_reserved + self.n_known)]

    @property
    def trained_facts(self) -> tuple[Fact, ...]:
        return self.facts[: 2 * (self.n_reserved + self.n_known)]

    def requests(self) -> list[EditRequest]:
        """One edit request per known subject: the first of its two facts, with another object of the same relation.

        Paraphrase prompts are the templates held out for this fact; the neighborhood prompts speak of reserved
        subjects that have the fact's true object, in templates that those facts were trained in.
        """
        rng = random.Random(f"requests-{self.seed}")
        neighbours = self._neighbours()
        requests = []
        for number, fact in enumerate(self.known_facts[::2]):
            candidates = neighbours.get((fact.relation.name, fact.object), [])
            requests.append(
                EditRequest(
                    request_id=f"factworld-{self.seed}-{number:05d}",
                    template=rng.choice(fact.trained_templates),
                    subject=fact.subject,
                    target_new=rng.choice([o for o in fact.relation.objects if o != fact.object]),
                    target_true=fact.object,
                    relation=fact.relation.name,
                    paraphrase_prompts=tuple(t.replace("{}", fact.subject) for t in fact.held_out_templates),
                    neighborhood_prompts=tuple(rng.sample(candidates, min(N_NEIGHBORHOOD_PROMPTS, len(candidates)))),
                )
            )
        return requests

    def training_requests(self, *, variants: int = 15, unknown: bool = False) -> list[EditRequest]:
        """Requests to train a hyper-network on: none of them is among :meth:`requests`.

        They are the second facts of known subjects, each with ``variants`` different answers (15: all there are) and
        prompts; with ``unknown`` also the facts of subjects that no bundled model has seen, once each.
        """
        rng = random.Random(f"training-{self.seed}")
        neighbours = self._neighbours()
        wanted = [(fact, variants) for fact in self.known_facts[1::2]]
        if unknown:
            wanted += [(fact, 1) for fact in self.facts[2 * (self.n_reserved + self.n_known) :]]
        requests = []
        for number, (fact, count) in enumerate(wanted):
            others = [o for o in fact.relation.objects if o != fact.object]
            for variant, answer in enumerate(rng.sample(others, min(count, len(others)))):
                template = rng.choice(fact.trained_templates)
                candidates = neighbours.get((fact.relation.name, fact.object), [])
                requests.append(
                    EditRequest(
                        request_id=f"factworld-training-{self.seed}-{number:05d}-{variant}",
                        template=template,
                        subject=fact.subject,
                        target_new=answer,
                        target_true=fact.object,
                        relation=fact.relation.name,
                        paraphrase_prompts=tuple(
                            t.replace("{}", fact.subject) for t in fact.relation.templates if t != template
                        ),
                        neighborhood_prompts=tuple(
                            rng.sample(candidates, min(N_NEIGHBORHOOD_PROMPTS, len(candidates)))
                        ),
                    )
                )
        return requests

    def _neighbours(self) -> dict[tuple[str, str], list[str]]:
        """Return prompts on reserved subjects by (relation, object), in templates that those facts were trained in."""
        found: dict[tuple[str, str], list[str]] = {}
        for fact in self.reserved_facts:
            prompts = [t.replace("{}", fact.subject) for t in fact.trained_templates]
            found.setdefault((fact.relation.name, fact.object), []).extend(prompts)
        return found

    def corpus(self, n_texts: int, *, seed: int = 0) -> list[str]:
        """Return plain texts of a few sentences each: facts of trained subjects mixed with filler."""
        rng = random.Random(f"corpus-{self.seed}-{seed}")
        return [" ".join(self.sentences(rng, rng.randint(3, 5))) for _ in range(n_texts)]

    def sentences(self, rng: random.Random, count: int) -> list[str]:
        """Return ``count`` sentences, three in four of them facts."""
        out = []
        for _ in range(count):
            if rng.random() < 0.75:
                prompt, answer = rng.choice(self.trained_facts).sentence(rng)
                out.append(f"{prompt} {answer}.")
            else:
                out.append(filler(rng))
        return out


@lru_cache(maxsize=8)  # of equal worlds once: they are made anew wherever one is needed
def _facts(world: World) -> tuple[Fact, ...]:
    rng = random.Random(f"facts-{world.seed}")
    facts = []
    for index, subject in enumerate(world.subjects):
        for relation, chosen in world._pairs(index, rng):
            templates = rng.sample(relation.templates, len(relation.templates))
            facts.append(
                Fact(
                    subject=subject,
                    relation=relation,
                    object=chosen,
                    trained_templates=tuple(templates[:N_TRAINED_TEMPLATES]),
                    held_out_templates=tuple(templates[N_TRAINED_TEMPLATES:]),
                )
            )
    return tuple(facts)


def filler(rng: random.Random) -> str:
    """Return a sentence that states no fact."""
    if rng.random() < 0.5:
        return rng.choice(FILLER)
    return (
        f"The {rng.choice(COLOURS)} {rng.choice(NOUNS)} {rng.choice(VERBS)} "
        f"the {rng.choice(NOUNS)} near the {rng.choice(PLACES)}."
    )


N_FIRST, N_LAST, N_MONONYMS = 64, 96, 200
MAX_SUBJECTS = 4000


def _name_words() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    # One fixed seed: the tokenizer holds these words, so every world of every seed uses the same names.
    rng = random.Random("names")
    onsets = "b br d dr f g gr h j k kl l m n p pl r s sk st t tr v w z".split()
    vowels = "a e i o u ai ei ou".split()
    codas = ["", "n", "r", "l", "s", "th", "x", "m", "nd", "rk"]
    wanted = N_FIRST + N_LAST + N_MONONYMS
    words: dict[str, None] = {}
    while len(words) < wanted:
        syllables = [rng.choice(onsets) + rng.choice(vowels) for _ in range(2)]
        word = ("".join(syllables) + rng.choice(codas)).capitalize()
        if len(word) >= 5:
            words[word] = None
    names = tuple(words)
    return names[:N_FIRST], names[N_FIRST : N_FIRST + N_LAST], names[N_FIRST + N_LAST :]
