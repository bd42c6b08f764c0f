"""Tag schemes: IOB1, IOB2, BIOES and none.

IOB1 and IOB2 are as in Tjong Kim Sang and Veenstra, "Representing Text Chunks" (EACL 1999); BIOES is also
known as IOBES and, with L for E and U for S, as BILOU (Ratinov and Roth, CoNLL 2009). Malformed sequences
are repaired as conlleval reads them: an inside tag that continues nothing opens an entity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

OUTSIDE = "O"
SCHEMES = ("iob2", "iob1", "bioes", "none")

_PREFIXES = {"iob1": "BI", "iob2": "BI", "bioes": "BIESLU"}
_ALIASES = {"L": "E", "U": "S"}


class TagError(ValueError):
    """A tag that its scheme does not know.

    Attributes: `tag`, and `position`, its place (from 0) in the sequence, so that a caller can name file
    and line.
    """

    def __init__(self, tag: object, position: int, scheme: str) -> None:
        """Build the message from the tag, its place and the scheme that refused it."""
        allowed = ", ".join([OUTSIDE, *(f"{prefix}-TYPE" for prefix in _PREFIXES[scheme])])
        hint = ""
        if scheme != "bioes" and isinstance(tag, str) and tag[:2] in ("E-", "S-", "L-", "U-"):
            hint = " (or scheme: bioes)"
        super().__init__(f"tag {position + 1}: found {tag!r} → allowed by {scheme}: {allowed}{hint}")
        self.tag = tag
        self.position = position
        self.scheme = scheme

    def __reduce__(self) -> tuple[type[TagError], tuple[object, int, str]]:
        """Pickle by the constructor's arguments (a data-loading process may raise this)."""
        return type(self), (self.tag, self.position, self.scheme)


def check_scheme(scheme: str) -> None:
    """Raise ValueError unless `scheme` is one of SCHEMES."""
    if scheme not in SCHEMES:
        raise ValueError(f"scheme: found {scheme!r} → allowed: {', '.join(SCHEMES)}")


def split_tag(tag: str, position: int, scheme: str) -> tuple[str, str]:
    """Return (prefix, type) of one tag, ("O", "") for the outside tag; L and U come back as E and S.

    The type is what follows the first hyphen, so it may hold hyphens. Raises TagError for a tag that is
    malformed (no type, a lower-case prefix, surrounding white space) or has a prefix foreign to `scheme`.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if not isinstance(tag, str):
        raise TagError(tag, position, scheme)
    prefix, hyphen, label = tag.partition("-")
    known = len(prefix) == 1 and prefix in _PREFIXES[scheme]
    if not (known and hyphen and label) or label != label.strip():
        raise TagError(tag, position, scheme)
    return _ALIASES.get(prefix, prefix), label


def to_iob2(tags: Sequence[str], scheme: str) -> tuple[list[str], int]:
    """Return the tags in IOB2 and the number of invalid transitions that were repaired.

    A transition is a pair of neighbours, the borders of the sequence included; each counts once. Invalid are:

    * iob2: an I-x that follows no B-x or I-x (it opens an entity);
    * iob1: a B-x that follows no x (B only separates neighbours of one type there; it opens an entity);
    * bioes: I-x or E-x without an open x (it opens one), and B, I left without an E (the entity ends there).

    With `none` the tags pass through. Raises TagError (a ValueError) for a malformed tag, ValueError for an
    unknown scheme.
    """
    check_scheme(scheme)
    if scheme == "none":
        return list(tags), 0
    parts = [split_tag(tag, position, scheme) for position, tag in enumerate(tags)]
    if scheme == "bioes":
        return _bioes_to_iob2(parts)
    result: list[str] = []
    invalid = 0
    previous = ""
    for prefix, label in parts:
        if prefix == OUTSIDE:
            result.append(OUTSIDE)
        else:
            continues = label == previous
            if not continues and prefix == ("B" if scheme == "iob1" else "I"):
                invalid += 1
            result.append(f"I-{label}" if continues and prefix == "I" else f"B-{label}")
        previous = label
    return result, invalid


def _bioes_to_iob2(parts: Sequence[tuple[str, str]]) -> tuple[list[str], int]:
    """Convert (prefix, type) pairs; `open_type` is the type of an entity that still awaits its E."""
    result: list[str] = []
    invalid = 0
    open_type = ""
    for prefix, label in parts:
        continues = prefix in ("I", "E") and label == open_type
        if not continues and (open_type or prefix in ("I", "E")):
            invalid += 1
        if prefix == OUTSIDE:
            result.append(OUTSIDE)
        else:
            result.append(f"I-{label}" if continues else f"B-{label}")
        open_type = label if prefix in ("B", "I") else ""
    return result, invalid + bool(open_type)


def chunks(tags: Sequence[str], scheme: str = "iob2") -> list[tuple[int, int, str]]:
    """Return the entities as (first, stop, type): words first … stop − 1.

    Malformed sequences are repaired as `to_iob2` does; with `none` an entity is a maximal run of equal tags
    other than O. Raises as `to_iob2`.
    """
    plain, _ = to_iob2(tags, scheme)
    found: list[tuple[int, int, str]] = []
    for place, tag in enumerate(plain):
        if tag == OUTSIDE:
            continue
        if scheme == "none":
            opens, label = place == 0 or plain[place - 1] != tag, tag
        else:
            opens, label = tag.startswith("B-"), tag[2:]
        first = place if opens else found.pop()[0]
        found.append((first, place + 1, label))
    return found


def from_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """Return IOB2 tags (repaired if need be) in another scheme; the inverse of `to_iob2` on valid sequences.

    With `none` the tags pass through. Raises as `to_iob2`.
    """
    check_scheme(scheme)
    if scheme == "none":
        return list(tags)
    if scheme == "iob2":
        return to_iob2(tags, "iob2")[0]
    result = [OUTSIDE] * len(tags)
    last_stop, last_label = -1, ""
    for first, stop, label in chunks(tags):
        prefixes = ["I"] * (stop - first)
        if scheme == "bioes":
            prefixes[0], prefixes[-1] = "B", "E"
            if len(prefixes) == 1:
                prefixes = ["S"]
        elif (first, label) == (last_stop, last_label):
            prefixes[0] = "B"
        result[first:stop] = [f"{prefix}-{label}" for prefix in prefixes]
        last_stop, last_label = stop, label
    return result


def tag_names(types: Sequence[str], scheme: str) -> list[str]:
    """Return the tags of a token task: O, B-x, I-x, … in the order of `types`; with `none` the types.

    Raises ValueError for an unknown scheme, a duplicate type or, with a scheme, a type that makes no valid
    tag.
    """
    check_scheme(scheme)
    if len(set(types)) != len(types):
        twice = next(name for place, name in enumerate(types) if name in types[:place])
        raise ValueError(f"labels: found {twice!r} twice → write it once")
    if scheme == "none":
        return list(types)
    names = [OUTSIDE]
    for name in types:
        if not name or name != name.strip() or name == OUTSIDE:
            raise ValueError(f"labels: found {name!r} → with scheme {scheme} write entity types, without O")
        names += [f"B-{name}", f"I-{name}"]
    return names


def types_in_order(tags: Iterable[str], scheme: str = "bioes") -> list[str]:
    """Return the entity types in `tags` in order of first appearance, as a ClassLabel of tags gives them.

    The default scheme knows the prefixes of all schemes; with `none` every tag is its own type (O included,
    as it is a label there). Raises as `to_iob2`.
    """
    check_scheme(scheme)
    if scheme == "none":
        return list(dict.fromkeys(tags))
    types = (split_tag(tag, position, scheme)[1] for position, tag in enumerate(tags))
    return list(dict.fromkeys(name for name in types if name))


def types_in(tags: Iterable[str], scheme: str = "bioes") -> list[str]:
    """Return the entity types in `tags` by code point; otherwise as `types_in_order`."""
    return sorted(types_in_order(tags, scheme))
