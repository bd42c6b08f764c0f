"""Word lists behind the slots: locales, invented brands, plans, trips and number formats.

Every brand and plan is invented. `POOLS` are the lists of which a part is kept for one split alone.
"""

from __future__ import annotations

LOCALES = (
    "en_GB", "en_US", "en_IN", "de_DE", "fr_FR", "es_ES", "it_IT", "pl_PL", "nl_NL", "pt_PT", "sv_SE",
    "tr_TR", "cs_CZ",
)  # fmt: skip
# Faker builds its Italian cities from a set: their order changes with each process.
CITY_LOCALES = tuple(locale for locale in LOCALES if locale != "it_IT")

# Names that are also ordinary words: only the context tells.
WORD_NAMES = (
    "Mark",
    "Grace",
    "Will",
    "April",
    "May",
    "June",
    "Rose",
    "Bill",
    "Hope",
    "Faith",
    "Frank",
    "Joy",
    "Chase",
    "Sterling",
)
WORD_CITIES = (
    "Reading",
    "Bath",
    "Nice",
    "Cork",
    "Hull",
    "Split",
    "Deal",
    "Essen",
    "Mobile",
    "Orange",
    "Sandwich",
    "Rugby",
)
BRANDED_FIRMS = (
    "Brightwater", "Orbit & Daughters", "Fernhill Bank", "Kestrel Air", "Blue Lantern",
    "Paris Hotel Group", "NorthPost", "Quickstep Couriers", "April Telecom", "Bank of Calder",
    "Mill Street 9", "Zenobia", "Tram & Tide", "First Parcel",
)  # fmt: skip
BRANDS = (
    "Nordvik", "Tavi", "AirLoop", "Kumo", "Brix", "Solenne", "Hearthly", "Pulsa", "Ondine", "Velora",
    "Graphit", "Mistral", "Otto & Finch", "Lumo", "Sparrow", "Amber", "Tessel", "Caldo", "Ridgeline",
    "Juno",
)  # fmt: skip
GOODS = (
    "kettle", "tablet", "headphones", "smartwatch", "rucksack", "desk lamp", "jumper", "coffee grinder",
    "bookshelf", "raincoat", "blender", "router", "keyboard", "running shoes", "camera", "pram",
    "armchair", "toaster", "tent", "e-reader", "drill", "duvet", "printer", "garden hose",
    "sewing machine",
)  # fmt: skip
MATERIALS = (
    "wool",
    "walnut",
    "linen",
    "steel",
    "bamboo",
    "cordless",
    "leather",
    "foldable",
    "oak",
    "ceramic",
)
MODELS = ("Pro", "Mini", "X2", "300", "K-45", "Max", "7", "Lite", "Air 5", "II", "S")
PLANS = (
    "Family Max", "Fibre 500", "StreamBox Premium", "Unlimited Duo", "Surf & Talk M", "Basic Mobile 10",
    "Cinema Plus", "Home Connect L", "Student Flat", "Roam Free", "Team Cloud 25", "Read Every Day",
    "Fresh Box Weekly", "Prepaid Go", "Gym Anytime", "Sports Pass",
)  # fmt: skip
BANKING = (
    "Platinum Travel card", "Junior Saver", "Everyday Account", "Cashback Visa", "Green Savings Plus",
    "Gold card", "Business Debit", "Fixed Rate Bond 3", "Student Account", "Flexi Mortgage",
    "Blue Credit card", "Easy Invest",
)  # fmt: skip
TRIPS = (
    "Rhine Explorer cruise", "Lisbon city break", "FlexiRail pass", "Sunset Safari tour",
    "Aegean Island Hopper", "Harbour Suite", "Alpine Ski Week", "Night Train to Vienna",
    "Family Camp Dolomites", "Silver Coast coach tour", "Nile Classic", "Wine & Walk Tuscany",
    "Northern Lights weekend", "Castle Hotel deal",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ORDER_FORMATS = (
    "??-#####",
    "#######",
    "ORD#####",
    "?#??#?",
    "##-####-?",
    "#%####",
    "??/####",
    "????####",
    "###-###-###",
)

POOLS = {
    "brands": BRANDS, "goods": GOODS, "materials": MATERIALS, "models": MODELS, "plans": PLANS,
    "banking": BANKING, "trips": TRIPS, "firms": BRANDED_FIRMS, "order_formats": ORDER_FORMATS,
}  # fmt: skip
