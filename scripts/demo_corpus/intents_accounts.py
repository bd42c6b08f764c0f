"""Core sentences of the intents about an account: payments, access, invoices, subscriptions and fraud.

The notation is that of `intents_orders.py`.
"""

from __future__ import annotations

PAYMENT_ISSUE = """
My card was [declined|refused] when I tried to pay {amount}.
I have been charged {amount} twice for {order}.
The direct debit of {date} bounced although there is money on the account.
My payment for the {gadget} shows as pending since {date}.
There's a charge of {amount} from {company} that should only have been {amount2}.
The checkout takes me back to the start whenever I choose to pay by card.
I paid for {order} on {date}, yet the shop says unpaid.
Why did the {plan} cost {amount} this month instead of {amount2}?
The transfer to {person} has not arrived, but the {amount} left my account.
My {bank} doesn't work at the till any more; the chip seems fine.
The discount code was not taken off the {amount}.
The instalment for {date} was collected too early.
I transferred {amount} to {company} and forgot the reference. Will it still be matched?
The payment page asks for a code that my bank never sends.
A fee of {amount} was added when I paid for the {trip} from {city}.
Can I pay the open {amount} by bank transfer, since the card keeps failing?
You took {amount} on {date}, and again {amount} on {date2}.
I was sent a reminder for {amount} which I paid long ago.
The cash machine in {city} kept {amount} and gave me nothing.
My top-up of {amount} is missing from the {plan}.
The amount on {order} doesn't match what was taken from my card.
Why is my salary payment from {company} not on the {bank} yet?
It says "insufficient funds" for {amount}; there's plenty on it.
The exchange rate used in {city} on {date} differs from what you publish.
I can log in all right, it's the paying that fails with {err}.
The invoice says {amount}, my bank statement says {amount2}.
The standing order to {person} went out twice on {date}.
How do I pay the rest for the {trip}? The link is dead.
+ Paying for the {gadget} went like a dream except that my card was charged twice.
+ Big thanks for your patience while I work out why the {amount} bounced.
- You have taken {amount} from me without any right and I am livid.
- Every single month the debit is wrong. How incompetent can a bank be?
- I'm ashamed to stand at the till in {city} with your useless {bank}.
My payment failed.
I was charged twice.
I can't pay with my credit card.
The payment for {order} [didn't go through|was rejected].
The wrong amount was debited: {amount} instead of {amount2}.
{company} charged me {amount} too much.
Why was my payment of {amount} declined?
"""

ACCOUNT_ACCESS = """
I can't log in to my account.
My password [isn't accepted|is rejected] although I changed it on {date}.
The reset mail never reaches {email}.
My account has been locked after {n} attempts. How do I unlock it?
I've lost the phone with the code app, so I am shut out of online banking.
Please send the activation link again, to {email} if possible.
The user name {email} is said not to exist.
How do I get back in if I no longer have the number {phone}?
After the move to {city} my login was switched off. Why?
The app asks for a PIN that I have never been given.
My partner {first} and I want to use one login; the second one is refused.
I need access to the account of {person}, who died on {date}; what do you require?
Signing in with {company} brings me to an empty profile.
The page says "session expired" right after I sign in.
I forgot the answer to my security question.
Could you remove the block on my {bank} login?
I want to see my orders, but the site wants me to confirm {email} first, and I can't.
Two-step codes arrive too late, so the login fails.
Is it you who closed my account on {date}? I didn't ask for that.
Where can I choose a new password?
My profile at {company} was merged with another one and I'm locked out of both.
I don't remember which email I registered with; it may be {email}.
I can pay at the shop, but online my access is blocked with {err}.
The fingerprint login stopped on {date} and the old code is void.
Since my surname changed from {last} I cannot sign in.
To download the invoice I have to sign in, and precisely that doesn't work.
Who can give me a new user ID for the {bank}?
+ Your colleague {first} was an angel and nearly got me back in; what's the next step for the login?
+ I do love the new sign-in page, it's just that my password no longer fits.
- Locked out again! I'm sick of these passwords.
- It is outrageous that I can't get at my own account.
- {n} hours to reset one password. Shame on you.
I forgot my password.
How do I reset my password?
I am locked out of my account.
My login doesn't work [any more|since {date}].
I can't access my account with {email}.
The verification code for my login never arrives.
I need a new password for my online account.
"""

INVOICE_REQUEST = """
[Could you send|Please send] me the invoice for {order}?
I need a receipt for the {gadget}, bought on {date}.
My bookkeeper {person} is missing the bill of {date}.
Please issue the invoice to {company} instead of to me.
The VAT number isn't on the invoice for {order}; may I have a corrected one?
Where can I download the invoices of the {plan}?
I paid {amount} in {city} on {date} and got no receipt.
For the tax office I need all statements up to {date}.
Kindly mail a copy of the bill for the {trip} to {email}.
The guarantee needs a proof of purchase for the {gadget}. Do you still have it?
The refund has come, now I need the credit note for {order}.
Can the invoice be made out to {person} in {city}?
Is it possible to get the bill on paper rather than by email?
There's no invoice in the parcel with the {gadget}.
Our accounts team at {company} asks for an itemised bill over {amount}.
The PDF of my bill from {date} is empty.
I don't dispute the {amount}, I only need it in writing.
May I have one invoice for {order} and {order2} together?
I changed my address; please print the new one on the bill for {order}.
The yearly statement for the {bank} hasn't been issued, could you provide it?
My employer pays for the {trip} once they have a document showing {amount}.
Which of your mails contains the bill? I find only a confirmation for {order}.
A duplicate of the receipt for {order}, please.
Send future bills for the {plan} to {email}.
What does "pro forma" on my bill of {date} mean, and when do I get the real one?
+ The {gadget} is perfect, all I need now is the invoice.
+ You're always so quick with these: could I get the bill of {date} too?
- This is the [third|fourth|hundredth] mail begging for a simple invoice.
- How can a firm of your size be unable to write a correct bill?
- My tax return is late because you couldn't be bothered to send a receipt.
I need an invoice.
Where do I find my invoice for {order}?
Could I get a copy of the invoice of {date}?
Please email me the receipt over {amount}.
I haven't received the invoice for the {gadget} yet.
Can you send the bill to {company}?
I need a VAT invoice for my purchase of {date}.
"""

SUBSCRIPTION_CHANGE = """
I want to switch from the {plan} to the {plan2}.
Please end my {plan} on {date}.
How do I downgrade the {plan}?
Could I pause the {plan} until {date}?
My contract for the {plan} runs out on {date}; I don't want it renewed.
Add a second line for {first} to my {plan}, please.
Can the {plan} be paid yearly instead of monthly?
I'd like to take over the {plan} of {person}.
What do I pay if I leave the {plan} before {date}?
Move me to the cheaper tariff at {amount}.
We need more data than the {plan} gives; what can I upgrade to?
I signed up for the {plan} by accident during the free trial. Undo that, please.
From {date} only one of us uses it, so the {plan} for two is too big.
Is the offer of {amount} for the {plan} open to existing customers?
Please confirm to {email} that the {plan} will not be extended.
I cancelled the order for the router, now please cancel the {plan} as well.
Take the sports channels out of my {plan}.
Can I keep my number {phone} if I go over to the {plan}?
My membership at the {city} branch should become a family one.
I should like to give notice for the {bank} with effect from {date}.
The newsletter may stay, the monthly box should stop after {date}.
Does changing from the {plan} to the {plan2} mean a new contract term?
Turn off the automatic renewal of my {plan}, please.
I would like to add roaming to the {plan} from {date}, as I'll be in {city}.
Our team at {company} has grown to {n} people: we need more seats on the {plan}.
My {plan} was put up to {amount} without my saying yes; put me back on the old one.
+ I enjoy the {plan} so much that I want the bigger one.
+ After a marvellous year with the {plan} I'd like to add my wife {first}.
- Get me out of the {plan}, it's the worst contract I ever signed.
- I feel cheated by the {plan} and want to leave it now.
- What a swindle, this "free" trial. End the {plan}!
I want to cancel my subscription.
How can I upgrade my plan?
I'd like to change my tariff from {date}.
Please downgrade my subscription to the {plan}.
I want to terminate my contract for the {plan}.
Can I switch to a monthly subscription?
I would like to renew my {plan} for another year.
"""

REPORT_FRAUD = """
My {bank} has been stolen. Please block it.
I lost my card in {city} on {date}.
There's a payment of {amount} to {company} that I didn't make.
Someone has ordered the {gadget} in my name.
I got a call from {phone} asking for my PIN. Was that you?
A mail from {email} pretends to come from you.
My wallet was taken on {date}; the {bank} was in it.
I don't know {order}. Somebody else must have used my account.
Is the message from {person} about my password genuine?
Please freeze the card ending in {four} for the time being.
My account shows a login from {city}, where I have never been.
I think I typed my card details into a copy of your site.
Two withdrawals of {amount} in {city} were not mine.
Unknown people took out the {plan} with my data.
I clicked on a link about a parcel and gave my code. What must I do?
The cash machine swallowed my card and a stranger "helped" me with it.
The police in {city} want a list of the payments that weren't mine since {date}.
A certain {person} says he works for you and wants {amount} for unlocking my account.
How do I report a seller on your site who takes {amount} and sends nothing?
I found my card again, but there is an odd debit of {amount} from {date}.
Nobody in this family ordered {order}, and yet the bill has our name on it.
Could you check whether {email} is really one of your addresses?
My bag with phone and cards is gone; no one must be able to log in.
It isn't a late payment, it's a payment to {company} that I never authorised.
+ Well spotted, your fraud team stopped the {amount} before I'd even noticed! The card should stay blocked.
+ Your text about the strange login from {city} was a lifesaver. It wasn't me, so please lock it.
- My account was emptied by {amount} and your so-called security just watched.
- How could you let a stranger take {amount} from me? Block everything!
- I warned you on {date} about the stolen card and you did nothing.
I want to report fraud.
My card was stolen.
Somebody has hacked my account.
I see a transaction of {amount} that I don't recognise.
Please block my card immediately.
I received a suspicious mail from {email}; it looks like phishing.
I lost my {bank}, please block it.
"""

INTENTS = {
    "payment_issue": PAYMENT_ISSUE,
    "account_access": ACCOUNT_ACCESS,
    "invoice_request": INVOICE_REQUEST,
    "subscription_change": SUBSCRIPTION_CHANGE,
    "report_fraud": REPORT_FRAUD,
}
