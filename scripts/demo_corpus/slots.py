"""Slot values: what stands in `{person}`, `{order}`, `{date}` … and which entity label each value carries.

A value is a list of pieces: `label` is `None` outside entities ("Mrs " before a name), `fixed` pieces are spared
typos. Names, cities, companies and dates come from Faker in several locales; e-mail addresses and phone numbers
stay inside ranges reserved for fiction. Part of the product names and formats occurs in one split only.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from faker import Faker

from demo_corpus.values import CITY_LOCALES, LOCALES, MONTHS, WEEKDAYS, WORD_CITIES, WORD_NAMES

SHARED_SHARE = 0.55
# Domains that RFC 2606 keeps out of use.
EMAIL_DOMAINS = ("example.com", "example.org", "mail.example", "post.example", "firm.example")
ANNOUNCING = ("order", "number is", "booking", "reference", "it's", "it is")


@dataclass(frozen=True)
class Piece:
    """A stretch of text with one entity label, or with none; `fixed` pieces take no typos."""

    text: str
    label: str | None = None
    fixed: bool = False


def split_pools(values: tuple[str, ...], shares: dict[str, float], rng: random.Random) -> dict[str, list[str]]:
    """The values that each split may use: a common part, and a part of its own."""
    shuffled = rng.sample(values, len(values))
    common, own = shuffled[: int(len(values) * SHARED_SHARE)], shuffled[int(len(values) * SHARED_SHARE) :]
    pools, start, passed = {}, 0, 0.0
    for split, share in shares.items():
        passed += share
        end = round(passed * len(own))
        pools[split] = common + own[start:end]
        start = end
    return pools


class SlotFiller:
    """Draws the values of slots for one split, from one seeded generator.

    Args:
        pools: for each pool name (`brands`, `goods`, …) the values that this split may use.
        rng: the source of every choice.
        seed: seeds the Faker generators, one a locale.
    """

    def __init__(self, pools: dict[str, list[str]], *, rng: random.Random, seed: int) -> None:
        self._pools = pools
        self._rng = rng
        self._fakers = {locale: Faker(locale) for locale in LOCALES}
        for position, locale in enumerate(LOCALES):
            self._fakers[locale].seed_instance(seed * 1000 + position)
        self._makers: dict[str, Callable[[], list[Piece]]] = {
            "person": self._person,
            "fullname": lambda: [Piece(self._full_name(), "PERSON")],
            "first": lambda: [Piece(self._first_name(), "PERSON")],
            "last": lambda: [Piece(self._faker().last_name(), "PERSON")],
            "city": lambda: [Piece(self._city(), "CITY")],
            "company": lambda: [Piece(self._company(), "COMPANY")],
            "date": self._date,
            "amount": lambda: [Piece(self._amount(), "AMOUNT", fixed=True)],
            "order": self._order,
            "email": lambda: [Piece(self._email(), "EMAIL", fixed=True)],
            "phone": lambda: [Piece(self._phone(), "PHONE", fixed=True)],
            "gadget": lambda: [Piece(self._gadget(), "PRODUCT")],
            "plan": lambda: [Piece(self._pick("plans"), "PRODUCT")],
            "bank": lambda: [Piece(self._pick("banking"), "PRODUCT")],
            "trip": lambda: [Piece(self._pick("trips"), "PRODUCT")],
            "n": lambda: [Piece(self._count(), fixed=True)],
            "days": lambda: [Piece(self._rng.choice(("10", "14", "20", "30", "fourteen", "thirty")), fixed=True)],
            "hour": lambda: [Piece(self._rng.choice(("8:30", "10", "5 pm", "14:15", "half past six")), fixed=True)],
            "err": lambda: [Piece(self._pattern(self._rng.choice(("E###", "###", "?-##", "0x##"))), fixed=True)],
            "four": lambda: [Piece(self._pattern("####"), fixed=True)],
            "version": lambda: [Piece(self._rng.choice(("4.2", "4.2.1", "7.0.3", "11.5", "2024.1")), fixed=True)],
        }

    def fill(self, slot: str, *, before: str = "") -> list[Piece]:
        """The pieces of one fresh value for a slot; a digit at the end of its name (`date2`) is ignored.

        `before` is the text in front of it: an order number is not announced twice ("order order no. 5").
        """
        pieces = self._makers[slot.rstrip("0123456789")]()
        announced = before.rstrip().casefold().endswith(ANNOUNCING)
        return [piece for piece in pieces if piece.label] if announced and "order" in slot else pieces

    @property
    def slots(self) -> frozenset[str]:
        """The names of all slots."""
        return frozenset(self._makers)

    def _faker(self, locales: tuple[str, ...] = LOCALES) -> Faker:
        return self._fakers[self._rng.choice(locales)]

    def _pick(self, pool: str) -> str:
        return self._rng.choice(self._pools[pool])

    def _pattern(self, pattern: str) -> str:
        """`#` a digit, `%` a digit from 1, `?` a capital letter that no digit is mistaken for."""
        kinds = {"#": "0123456789", "%": "123456789", "?": "ABCDEFGHJKLMNPQRSTUVWXYZ"}
        return "".join(self._rng.choice(kinds[sign]) if sign in kinds else sign for sign in pattern)

    def _count(self) -> str:
        return self._rng.choice(("2", "3", "4", "5", "6", "8", "two", "three", "four", "five", "six"))

    def _first_name(self) -> str:
        return self._rng.choice(WORD_NAMES) if self._rng.random() < 0.08 else str(self._faker().first_name())

    def _full_name(self) -> str:
        faker = self._faker()
        first = self._rng.choice(WORD_NAMES) if self._rng.random() < 0.05 else faker.first_name()
        return f"{first} {faker.last_name()}"

    def _person(self) -> list[Piece]:
        roll = self._rng.random()
        if roll < 0.55:
            return [Piece(self._full_name(), "PERSON")]
        if roll < 0.75:
            return [Piece(self._first_name(), "PERSON")]
        title = self._rng.choice(("Mr ", "Mrs ", "Ms ", "Dr "))
        return [Piece(title), Piece(str(self._faker().last_name()), "PERSON")]

    def _city(self) -> str:
        return (
            self._rng.choice(WORD_CITIES)
            if self._rng.random() < 0.08
            else str(self._faker(CITY_LOCALES).city()).strip()
        )

    def _company(self) -> str:
        """A firm of more than one word where Faker makes it up: a bare surname could be anybody."""
        name = "" if self._rng.random() < 0.3 else str(self._faker().company()).strip()
        return name if " " in name else self._pick("firms")

    def _date(self) -> list[Piece]:
        """A calendar date or a weekday. Faker is given both ends, as its defaults depend on the day it is run."""
        day = self._faker().date_between(start_date=date(2023, 1, 1), end_date=date(2025, 12, 31))
        month, ordinal = MONTHS[day.month - 1], f"{day.day}{_suffix(day.day)}"
        forms = (
            f"{day.day} {month}", f"{month} {ordinal}", f"{day:%d/%m/%Y}", f"{day:%Y-%m-%d}",
            f"{day.day} {month[:3]} {day.year}", f"{day.day}.{day.month}.{day.year}",
            f"{WEEKDAYS[day.weekday()]}", f"{WEEKDAYS[day.weekday()]}", f"{ordinal} of {month}",
            f"{WEEKDAYS[day.weekday()]}, {day.day} {month}",
        )  # fmt: skip
        if self._rng.random() < 0.1:
            return [Piece("the "), Piece(ordinal, "DATE")]
        return [Piece(self._rng.choice(forms), "DATE", fixed=self._rng.random() < 0.7)]

    def _amount(self) -> str:
        whole, cents = self._rng.randint(3, 950), self._rng.choice(("00", "50", "90", "95", "99", "49"))
        words = self._rng.choice(("twenty", "sixty", "a hundred", "two hundred", "fifteen"))
        forms = (
            f"£{whole}.{cents}", f"${whole}", f"€{whole}", f"{whole} euros", f"EUR {whole}",
            f"{whole},{cents} €", f"{whole} quid", f"£1,{whole % 900 + 100}.{cents}",
            f"{whole}.{cents} pounds", f"{words} pounds", f"{whole} dollars", f"{whole} zł",
        )  # fmt: skip
        return self._rng.choice(forms)

    def _order(self) -> list[Piece]:
        number = Piece(self._pattern(self._pick("order_formats")), "ORDER_ID", fixed=True)
        lead = self._rng.choice(("", "", "order ", "order no. ", "#", "number "))
        return [Piece(lead, fixed=True), number] if lead else [number]

    def _email(self) -> str:
        faker = self._faker()
        first, last = (_ascii(faker.first_name()), _ascii(faker.last_name()))
        local = self._rng.choice(
            (
                f"{first}.{last}",
                f"{first[:1]}{last}",
                f"{last}_{self._rng.randint(1, 99)}",
                f"{first}{last[:1]}",
            )
        )
        return f"{local}@{self._rng.choice(EMAIL_DOMAINS)}"

    def _phone(self) -> str:
        """A number from the ranges that telephone authorities keep for fiction."""
        forms = (
            "07700 900###",
            "020 7946 0###",
            "+44 7700 900###",
            "(202) 555-01##",
            "555-01##",
            "06 39 98 ## ##",
            "030 23125 ###",
        )
        return self._pattern(self._rng.choice(forms))

    def _gadget(self) -> str:
        goods = self._pick("goods")
        roll = self._rng.random()
        if roll < 0.4:
            return f"{self._pick('brands')} {goods}"
        if roll < 0.7:
            return f"{self._pick('brands')} {self._pick('models')}" + (f" {goods}" if self._rng.random() < 0.4 else "")
        return f"{self._pick('materials')} {goods}"


def _suffix(day: int) -> str:
    """The English ordinal suffix of a day of the month."""
    return "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _ascii(name: str) -> str:
    """A name as it stands in an e-mail address: lower case, plain letters only."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(sign for sign in plain.lower() if sign.isalpha()) or "kunde"
