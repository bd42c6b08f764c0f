"""Write the demo's knowledge base and the questions that its answering task learns from.

    python scripts/make_demo_faq.py --seed 13 --output tasks/demo/faq

`knowledge.jsonl` holds an answer an entry. Each entry has five ways to say what is asked for ("send something back"): three are in
the training questions, one in those of validation and one in those of test; and each split has its own ways to ask ("how do I …?").
So no question template, neither its core nor its frame, is in two splits. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

SEED = 13
EACH = {"train": 4, "validation": 2, "test": 2}  # questions a core

FRAMES = {
    "train": (
        "how do I {}?",
        "how can I {}?",
        "I want to {}, what do I have to do?",
        "Can you tell me how to {}?",
        "what is the way to {}?",
        "Is there a way to {}?",
        "i need to {} please help",
        "Hi, I'd like to {}. Thanks!",
        "I have to {} today, what now?",
    ),
    "validation": (
        "Please explain how to {}",
        "Where do I begin if I want to {}?",
        "my question: how to {}",
        "What must one do to {}?",
    ),
    "test": (
        "Hello, would it be possible to {}?",
        "Any idea how one can {}?",
        "I was told I could {}. How does that work?",
        "trying to {} but I don't know how",
    ),
}

# Entry → its answer, and five ways to say what is asked for.
ENTRIES: dict[str, tuple[str, tuple[str, str, str, str, str]]] = {
    "returns-send": (
        "You have 30 days. Print the return label in your account under Orders, and hand the parcel in at any post office.",
        (
            "return an item",
            "send something back",
            "give back what I bought",
            "bring an article back to you",
            "make a return",
        ),
    ),
    "returns-exchange": (
        "Choose Exchange in place of Return and pick the other size or colour; we send it when your parcel has arrived.",
        (
            "exchange an item",
            "swap it for another size",
            "change the colour of what I bought",
            "get a different size instead",
            "trade it for a bigger one",
        ),
    ),
    "refund-when": (
        "Refunds reach your card within five working days after your return has arrived.",
        (
            "find out when my refund comes",
            "see how long a refund takes",
            "know when I get my money back",
            "learn when the money is back on my card",
            "check when I will be reimbursed",
        ),
    ),
    "refund-voucher": (
        "A refund can be paid as a voucher: choose Voucher on the return form, and it comes by e-mail the same day.",
        (
            "get a voucher instead of money",
            "have my refund as a gift card",
            "take store credit for a return",
            "turn my refund into a coupon",
            "be refunded with a voucher",
        ),
    ),
    "order-cancel": (
        "An order can be cancelled until it is packed: Orders, then Cancel. After that, refuse the parcel or return it.",
        (
            "cancel my order",
            "stop an order I just placed",
            "withdraw a purchase",
            "call off what I ordered",
            "undo an order before it ships",
        ),
    ),
    "order-change": (
        "Articles can be added or removed until the order is packed: Orders, then Edit.",
        (
            "change my order",
            "add an article to my order",
            "remove one thing from an order",
            "edit what I have ordered",
            "put something more into an existing order",
        ),
    ),
    "order-track": (
        "The tracking link is in the dispatch e-mail, and in your account under Orders.",
        (
            "track my parcel",
            "see where my order is",
            "follow my delivery",
            "find out where the package is now",
            "look up the status of my shipment",
        ),
    ),
    "order-missing": (
        "If tracking says delivered and nothing is there, ask the neighbours, then report it under Orders within seven days.",
        (
            "report a parcel that never came",
            "tell you that my package is missing",
            "complain about a delivery that was not received",
            "say that my parcel is lost",
            "claim an order that did not arrive",
        ),
    ),
    "order-damaged": (
        "Send a photo of the damage under Orders, Report a problem. We replace the article and you need not return it.",
        (
            "report a damaged article",
            "get a replacement for a broken item",
            "complain about something that arrived in pieces",
            "show you that it came broken",
            "have a cracked product replaced",
        ),
    ),
    "order-wrong": (
        "Sorry for the mix-up: choose Wrong article under Orders. The right one leaves the same day, and pick-up is free.",
        (
            "report that I got the wrong article",
            "tell you that you sent something else",
            "get the thing I really ordered",
            "sort out a mixed-up delivery",
            "swap a product that I never ordered",
        ),
    ),
    "delivery-express": (
        "Express costs 9.90 and arrives on the next working day if you order before 3 pm.",
        (
            "get express delivery",
            "have it by tomorrow",
            "receive my order faster",
            "speed up the shipping",
            "order with next-day delivery",
        ),
    ),
    "delivery-cost": (
        "Standard delivery is 3.90, and free from an order value of 40.",
        (
            "find out what shipping costs",
            "get free delivery",
            "know the price of delivery",
            "see how much the postage is",
            "avoid paying for shipping",
        ),
    ),
    "delivery-abroad": (
        "We deliver to all countries of the EU, to Switzerland and Norway; customs outside the EU are paid by the receiver.",
        (
            "have a parcel sent abroad",
            "order from another country",
            "get a delivery to Switzerland",
            "ship something overseas",
            "receive my order outside the EU",
        ),
    ),
    "delivery-pickup": (
        "Choose Parcel shop at the checkout; the parcel is kept for seven days and handed out with your ID.",
        (
            "pick up my parcel at a shop",
            "collect an order myself",
            "have it sent to a parcel station",
            "fetch my package from a store",
            "use a pick-up point",
        ),
    ),
    "delivery-date": (
        "Open the tracking link and choose another day, once, until midnight before the delivery.",
        (
            "choose the day of the delivery",
            "postpone a delivery",
            "move my delivery to another day",
            "have the parcel brought later",
            "reschedule when the courier comes",
        ),
    ),
    "delivery-neighbour": (
        "Name a neighbour or a safe place through the tracking link; the courier leaves the parcel there.",
        (
            "have my parcel left with a neighbour",
            "name a safe place for the package",
            "let somebody else accept the delivery",
            "tell the courier to leave it at the door",
            "get it delivered while I am not home",
        ),
    ),
    "account-password": (
        "Choose Forgot password at the log-in; the link in the e-mail is valid for one hour.",
        (
            "reset my password",
            "log in without my password",
            "get a new password",
            "recover a forgotten password",
            "set another password because I lost mine",
        ),
    ),
    "account-locked": (
        "After five wrong passwords an account is locked for 30 minutes. It opens by itself; a reset opens it at once.",
        (
            "unlock my account",
            "get back into a locked account",
            "open an account that was blocked",
            "log in after too many attempts",
            "lift the block on my log-in",
        ),
    ),
    "account-email": (
        "Change the address under Settings, E-mail, and confirm it with the link that we send to the new one.",
        (
            "change my e-mail address",
            "use another e-mail",
            "update the mail address of my account",
            "switch to a different e-mail",
            "replace the e-mail I signed up with",
        ),
    ),
    "account-delete": (
        "Settings, Privacy, Delete account. Invoices are kept for ten years, as the law asks; everything else goes within 30 days.",
        (
            "delete my account",
            "close my account for good",
            "remove all of my data",
            "get rid of my profile",
            "have my personal data erased",
        ),
    ),
    "account-data": (
        "Settings, Privacy, Download my data gives a file with everything that we keep about you.",
        (
            "see what data you have about me",
            "download my data",
            "get a copy of my personal data",
            "know what you store about me",
            "export everything you keep on me",
        ),
    ),
    "account-twofactor": (
        "Settings, Security, Two-step log-in: scan the code with an authenticator app.",
        (
            "turn on two-factor authentication",
            "make my log-in safer",
            "use an authenticator app",
            "protect my account with a second step",
            "set up a code for logging in",
        ),
    ),
    "account-name": (
        "Names are changed by our staff: send a photo of your ID through the contact form, after a marriage for instance.",
        (
            "change my name",
            "correct the spelling of my name",
            "update my surname after the wedding",
            "fix a typo in my name",
            "use my married name",
        ),
    ),
    "address-change": (
        "Settings, Addresses. Orders that are already packed still go to the old address.",
        (
            "change my address",
            "update where I live",
            "enter a new delivery address",
            "tell you that I have moved",
            "correct my street and house number",
        ),
    ),
    "pay-methods": (
        "Card, PayPal, bank transfer and invoice. Invoice needs an order value below 500.",
        (
            "find out how I can pay",
            "pay with PayPal",
            "see the payment methods",
            "know which cards you take",
            "pay by bank transfer",
        ),
    ),
    "pay-instalments": (
        "Orders from 100 can be paid in 3, 6 or 12 monthly instalments without interest; choose it at the checkout.",
        (
            "pay in instalments",
            "spread the cost over months",
            "pay a bit every month",
            "split the payment",
            "finance a purchase",
        ),
    ),
    "pay-failed": (
        "A declined card is mostly a limit or an expired date. Try another method; the order is kept for 24 hours.",
        (
            "fix a payment that failed",
            "pay although my card was declined",
            "finish an order whose payment did not work",
            "solve a rejected card",
            "get my transaction through",
        ),
    ),
    "pay-twice": (
        "A double charge is mostly a reservation that vanishes within three days. If it does not, send us the statement.",
        (
            "report that I was charged twice",
            "get back a double payment",
            "complain about paying two times",
            "sort out a duplicate charge",
            "undo a second debit for one order",
        ),
    ),
    "pay-card": (
        "Settings, Payment: add the new card, then remove the old one.",
        (
            "change my credit card",
            "add a new card",
            "remove an old card",
            "update my payment details",
            "replace the card that you have on file",
        ),
    ),
    "invoice-get": (
        "Invoices are in your account under Orders, as PDF, from the day of dispatch.",
        (
            "get an invoice",
            "download a receipt",
            "find the bill for my order",
            "print the invoice",
            "have the receipt sent to me",
        ),
    ),
    "invoice-company": (
        "Enter company and VAT number under Settings, Billing, before you order; invoices that exist cannot be changed.",
        (
            "get an invoice for my company",
            "put a VAT number on the bill",
            "order as a business",
            "have my firm on the receipt",
            "buy on behalf of a company",
        ),
    ),
    "discount-code": (
        "Enter the code at the checkout under Voucher; one code an order, not on sale articles.",
        (
            "use a discount code",
            "redeem a coupon",
            "enter a promo code",
            "apply my voucher",
            "get the price down with a code",
        ),
    ),
    "discount-student": (
        "Students get 10 %: verify your university address under Settings, Benefits.",
        (
            "get a student discount",
            "pay less as a student",
            "prove that I study",
            "use my university mail for a discount",
            "have the reduced price for students",
        ),
    ),
    "giftcard-buy": (
        "Gift cards from 10 to 250 come by e-mail at once, or by post in an envelope.",
        (
            "buy a gift card",
            "give somebody a voucher",
            "send a gift card to a friend",
            "purchase a present card",
            "order a gift certificate",
        ),
    ),
    "giftwrap": (
        "Gift wrapping is 2.90 an article: tick Present at the checkout and write the card's text.",
        (
            "have it wrapped as a gift",
            "add a greeting card",
            "send it as a present",
            "get gift wrapping",
            "put a personal message into the parcel",
        ),
    ),
    "subscription-pause": (
        "My subscription, Pause: for up to three months, with two days' notice.",
        (
            "pause my subscription",
            "take a break from the subscription",
            "suspend my plan for a month",
            "put the subscription on hold",
            "interrupt my membership while I travel",
        ),
    ),
    "subscription-cancel": (
        "My subscription, End. It runs to the end of the month that is paid.",
        (
            "end my subscription",
            "cancel my membership",
            "quit my plan",
            "unsubscribe from the monthly box",
            "terminate the contract",
        ),
    ),
    "subscription-upgrade": (
        "My subscription, Change plan: an upgrade holds at once, a downgrade from the next month.",
        (
            "upgrade my plan",
            "switch to a bigger plan",
            "change to the premium subscription",
            "get more out of my subscription",
            "move up to a higher tier",
        ),
    ),
    "newsletter-stop": (
        "Use the link at the foot of any newsletter, or Settings, Messages.",
        (
            "stop the newsletter",
            "get fewer e-mails from you",
            "unsubscribe from advertising",
            "turn off marketing mails",
            "end the promotional messages",
        ),
    ),
    "app-crash": (
        "Update the app, then clear its cache under your phone's settings. If it still closes, send the report that it offers.",
        (
            "fix the app when it crashes",
            "make the app work again",
            "stop the app from closing",
            "repair an app that freezes",
            "get rid of the error in the app",
        ),
    ),
    "app-language": (
        "Settings, Language, in the app and on the website apart.",
        (
            "change the language",
            "use the app in English",
            "switch the website to French",
            "read everything in German",
            "set another language",
        ),
    ),
    "warranty": (
        "Two years from delivery. Describe the fault under Orders, Warranty; we repair, replace or refund.",
        (
            "use my warranty",
            "have a faulty device repaired",
            "claim the guarantee",
            "get a defect fixed after a year",
            "send in a product for repair",
        ),
    ),
    "spare-parts": (
        "Spare parts are under Parts, by the model number on the back of the device.",
        (
            "order a spare part",
            "buy a new battery for my device",
            "find a part for my machine",
            "get a replacement lid",
            "purchase accessories for an old model",
        ),
    ),
    "manual": (
        "All manuals are under Support, Manuals, by model number.",
        (
            "find the manual",
            "read the instructions",
            "download the user guide",
            "get the operating instructions",
            "look up how the device is used",
        ),
    ),
    "stock-notify": (
        "Choose Tell me on the article's page; we send one e-mail when it is back.",
        (
            "know when an article is back",
            "get told when it is in stock again",
            "order something that is sold out",
            "be notified about availability",
            "reserve a product that is unavailable",
        ),
    ),
    "store-hours": (
        "Our stores are open Monday to Saturday, 9 am to 8 pm; the list with all addresses is under Stores.",
        (
            "find a store near me",
            "see when you are open",
            "visit one of your shops",
            "know the opening hours",
            "come to a branch on Saturday",
        ),
    ),
    "contact-human": (
        "Call 0800 555 0199, Monday to Friday, 8 am to 6 pm, or write in the chat.",
        (
            "talk to a person",
            "speak to somebody on the phone",
            "call customer service",
            "reach a human agent",
            "get through to a real employee",
        ),
    ),
    "fraud-report": (
        "Do not click. Forward the message to our security team through Support, Fraud, and change your password.",
        (
            "report a suspicious e-mail",
            "tell you about a fake message",
            "report somebody who uses my account",
            "warn you of a phishing mail",
            "notify you about a fraud",
        ),
    ),
    "review-write": (
        "Reviews can be written for what you bought: Orders, Rate. They appear within two days.",
        (
            "write a review",
            "rate a product",
            "tell others what I think of it",
            "leave feedback on an article",
            "give stars to my purchase",
        ),
    ),
    "recycling": (
        "Bring old devices and batteries to any of our stores, or order a free return box under Support, Recycling.",
        (
            "recycle an old device",
            "dispose of batteries",
            "throw away an appliance properly",
            "hand in electronic waste",
            "get rid of my old phone in a green way",
        ),
    ),
}
CORES = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}


def questions(split: str, seed: int) -> list[dict[str, str]]:
    """The questions of a split, shuffled: `id` of the entry, `question`, `answer`."""
    generator = random.Random(f"{seed} {split}")
    rows = []
    for name, (answer, cores) in ENTRIES.items():
        for core in CORES[split]:
            for frame in generator.sample(FRAMES[split], EACH[split]):
                rows.append({"id": name, "question": frame.format(cores[core]), "answer": answer})
    generator.shuffle(rows)
    return rows


def write(folder: Path, seed: int) -> None:
    """The knowledge base and three splits of questions."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {split: questions(split, seed) for split in FRAMES}
    tables["knowledge"] = [{"id": name, "answer": answer} for name, (answer, _) in ENTRIES.items()]
    for name, rows in tables.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
        print(f"{folder / name}.jsonl: {len(rows)}")


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=Path("tasks/demo/faq"))
    options = parser.parse_args()
    write(options.output, options.seed)


if __name__ == "__main__":
    main()
