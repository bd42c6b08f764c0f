"""What stands around the core without tone or intent of its own: greetings, background, closings, connectors.

Background uses the vocabulary of other intents on purpose (a paid invoice, a working password), so that a
keyword does not give an intent away; ` ;; not a b` names the intents that it would contradict.
"""

from __future__ import annotations

GREETINGS = """
Hi,
Hello,
Dear Sir or Madam,
Good morning,
Good evening,
Hello {company},
Dear {company} team,
Hi {first},
Dear {person},
To whom it may concern,
Hey there,
Greetings from {city},
Hi all,
Good day,
Hello again,
Dear all,
Hello, {first} here.
{fullname} speaking.
My name is {fullname}.
This is {fullname} from {city}.
Hey guys,
Hi there,
Morning,
Dear customer service,
Hello dear team in {city},
Attention {person}:
Hello everybody at {company},
Dear customer service of {company},
"""

BACKGROUND = """
The payment of {amount} has gone through. ;; not payment_issue cancel_order report_fraud refund_request
I already have the invoice. ;; not invoice_request cancel_order
My password works, by the way. ;; not account_access technical_problem report_fraud
I live in {city}. ;; not change_address booking_change
I moved to {city} on {date}, and you have the new address. ;; not change_address
The refund for another item has arrived. ;; not refund_request
The app runs fine on my phone. ;; not technical_problem account_access
I've been with you since {date}.
The account is in the name of {fullname}.
My user name is the address {email}. ;; not account_access
The subscription can stay as it is. ;; not subscription_change
It has nothing to do with my earlier complaint. ;; not complaint
I spoke with {person} about something else on {date}.
My order {order} from {date} was delivered as planned. ;; not delivery_delay track_order cancel_order
The other parcel was on time. ;; not delivery_delay
I cancelled a different order on {date}. ;; not cancel_order refund_request
My card wasn't blocked or anything. ;; not report_fraud payment_issue
I tried the chat before that. ;; not speak_to_agent
I'm travelling from {date} until {date2}. ;; not booking_change
I use the {plan} and the {bank}. ;; not subscription_change report_fraud
Last time I bought the {gadget} from you. ;; not product_question cancel_order
The branch in {city} sent me here.
We are a small firm, {company}.
{person} and I share the account. ;; not account_access
My email is {email}.
I bought it for {first}. ;; only product_question track_order delivery_delay cancel_order refund_request
Your {city} shop told me to wait {n} days, which I have done. ;; not praise
I have the app in version {version}. ;; not praise
We have an appointment on {date} anyway. ;; not speak_to_agent
No need to call, I know how to reach you. ;; not speak_to_agent
The bill of {amount} is settled. ;; not payment_issue invoice_request report_fraud
I'm {n} weeks into the contract. ;; only subscription_change technical_problem product_question complaint
My father {fullname} set it all up on {date}.
The trip is only on {date}. ;; only booking_change invoice_request refund_request payment_issue
I had a look at {company} as well.
Nothing about my address has changed. ;; not change_address
There is a note on my file from {first}.
The card ends in {four}. ;; only payment_issue refund_request report_fraud
I'm asking for the second time, the first was on {date}. ;; not praise complaint
It doesn't concern the {bank}. ;; not report_fraud
My phone number is still {phone}. ;; not change_address
You may text me on {phone}. ;; not speak_to_agent
The number on my account is {phone}.
Your colleague rang me on {phone} about another matter. ;; not speak_to_agent report_fraud
I've tried from {phone} and from another line. ;; only speak_to_agent technical_problem account_access complaint
My wife's number, {phone}, is on the account as well.
I work for {company}.
I was with {company} before.
{company} couldn't help me with that.
I also asked {company}, who sent me to you.
The branch of {company} next door is closed.
Your mails reach me at {email}. ;; not account_access change_address
I'm registered as {email}. ;; not account_access change_address
The order confirmation went to {email}. ;; only track_order delivery_delay cancel_order refund_request invoice_request
"""

CLOSINGS = """
Thanks.
Thank you in advance.
Regards, {fullname}
Kind regards, {fullname}, {city}
Best, {first}
Yours faithfully, {fullname}
Cheers, {first}
{fullname}
{first}, {phone}
Many thanks and regards, {fullname}
Bye for now.
Sincerely, {person}
Best wishes from {city}
Waiting for your reply.
Thanks, {fullname} ({company})
{fullname}, {email}
Yours, {first}
Looking forward to hearing from you.
Please advise.
Until then, {first}
Thank you and have a nice day.
Greetings, {first} and {first2}
With regards, {fullname}, {company}, {city}
Ta, {first}
Sent from my phone
On behalf of {company}, {fullname}
{fullname}, tel. {phone}
Regards, {first} / {phone}
My number: {phone}
{fullname}, {city}, {phone}
Mobile: {phone}
{fullname}, {company}
For {company}: {fullname}
Regards from everybody at {company}
Mail: {email}
Regards, {first} ({email})
{first}, to be found at {email}
"""

CONNECTORS = """
But
However,
Still,
That said,
Then again,
Having said that,
All the same,
Even so,
And yet
On the other hand,
Mind you,
"""

FRAMES = {"greeting": GREETINGS, "background": BACKGROUND, "closing": CLOSINGS, "connector": CONNECTORS}
