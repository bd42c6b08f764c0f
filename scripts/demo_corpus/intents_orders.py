"""Core sentences of the intents about an order: tracking, delay, cancellation, refund, address, product questions.

One line is one template. A leading `+` or `-` says that the sentence alone carries that tone; the others are
neutral and take any tone from a clause around them. `{slot}` is filled by `slots.py`; of `[a|b]` one is chosen.
"""

from __future__ import annotations

TRACK_ORDER = """
[Where is|Where's] order {order}?
Could you tell me [where my parcel is|where the parcel is right now]? The number is {order}.
I ordered the {gadget} on {date} and would like to know [how far it has got|where it has got to].
Has {order} left the [warehouse|depot] in {city} yet?
The tracking page for {order} has said "in transit" since {date}. Which depot is it in?
My tracking link for {order} opens an empty page; can you tell me the status instead?
Do you have a delivery [date|slot] for the {gadget} I bought?
I don't want to cancel {order}, I only want to know where it is.
No refund needed, [just|only] the whereabouts of my {gadget}.
{person} is supposed to receive the {gadget} from me in {city}. Is it on its way?
What's the [status|state] of {order}, please?
Which courier has my {gadget}, and what is the tracking code?
I paid {amount} for the {gadget} on {date}; has it been sent?
Is it {company} or someone else who [delivers|is carrying] {order}?
When I enter {order} the site only says "received". Has it been dispatched?
Please send the tracking details for {order} to {email}.
Can you check whether my {gadget} has reached {city}?
I'm away from {date}. Will {order} be here before then?
The mail I got on {date} said "shipped". Shipped to where, exactly?
Is there any way to follow the {gadget} on a map?
{n} boxes came, the last of {order} didn't; where might that one be?
My neighbour in {city} got hers. Where has mine got to? It's {order}.
{order}: shipped or still being packed?
You said {date}. Does that still stand for {order}?
Who do I ask to find out which van my {gadget} is on?
My new {bank} was posted on {date}; can I follow the letter somewhere?
The SIM for my {plan} has been on the road since {date}. Is there a number to trace it?
Customs in {city} say they no longer have {order}. Who has it now?
Any news on the {gadget} that {first} ordered for me?
+ {order} is moving so quickly that I can hardly keep up; where is it now?
+ I'm thrilled that {order} has already left {city}! When will it get here?
+ You packed my {gadget} with such care. Could I have the tracking link as well?
- I have asked {n} times where {order} is and still nobody has a clue.
- Nobody can tell me where my {gadget} is. Does anyone there know anything?
- How hard can it be to say where {order} is? Your tracking is useless.
I'd like to track {order}.
Has my order been shipped yet?
When will my parcel [arrive|be delivered]?
Can I get an update on the shipment of {order}?
Please tell me the current location of my package.
How can I track the {gadget} I ordered on {date}?
What is the tracking number of {order}?
"""

DELIVERY_DELAY = """
{order} was due on {date} and has not [arrived|turned up|come].
My {gadget} is now {n} days late.
The courier has moved my delivery from {date} to {date2}. Why the wait?
You promised next-day delivery for {order}; that was {n} days ago.
It's past {date} and the {gadget} from {company} still isn't here.
The parcel was meant to reach {city} by {date}. It hasn't.
Why is {order} taking longer than the {days} days on your website?
I took {date} off work to be at home for {order}, and no van came.
According to the tracking it has been stuck in {city} since {date}, so it will be late.
I know where {order} is, thank you: in {city}. What I don't know is why it isn't moving.
The replacement {gadget} should have come on {date}. Still waiting.
My card for the {bank} was to arrive by {date}; the letter box is empty.
The new router for the {plan} was announced for {date} and then again for {date2}.
I'm not asking to cancel, but {order} is overdue by {n} days.
The express fee of {amount} was charged, the express delivery did not happen.
{person} in {city} was to get the {gadget} for {date}; it came too late for the birthday.
Delivery of {order} has been put back [again|once more], this time to {date}.
The driver wrote "nobody at home" on {date}. We were at home, so now it's a day late.
How much longer for the {gadget}? The date given was {date}.
The travel documents for the {trip} should have been here {n} days before we leave.
I've had a message that {order} is delayed. By how much?
The second half of {order} is running late.
Is the strike in {city} the reason why my {gadget} didn't come on {date}?
My {gadget} missed the slot between {hour} and noon on {date}.
{company} blames you and you blame {company} for the late delivery of {order}.
+ The {gadget} came {n} days late, and what a beauty it is, so all is forgiven.
+ Thanks for warning me so early that {order} will be late, that was really kind.
+ A small delay with {order}, and you handled it wonderfully.
- {n} weeks for one {gadget}? This delay is beyond a joke.
- Once again {order} is late and once again nobody bothered to tell me.
- I've wasted a whole day waiting for the {gadget} that never came.
My parcel is late.
Why has my delivery been delayed?
{order} still hasn't arrived, it is {n} days overdue.
The delivery date of {date} has passed and I have received nothing.
I am still waiting for the {gadget}, which was promised for {date}.
The shipment is behind schedule again: {date2} instead of {date}.
What is the reason for the delay of {order}?
"""

CANCEL_ORDER = """
[Please cancel|Cancel] {order}.
I'd like to call off my order for the {gadget}.
Can {order} still be stopped before it leaves {city}?
I ordered the {gadget} twice by mistake; remove [one|the second one], please.
I no longer need the {gadget} that I ordered on {date}.
Please don't ship {order}.
The {gadget} is cheaper at {company}, so I'd rather not take the one I ordered from you.
{order} has not been sent yet, has it? Then I want to withdraw it.
My sister {first} has already bought the {gadget}. Kindly scrap {order}.
How do I cancel an order that shows as "being prepared"? It is {order}.
I clicked "buy" too fast on {date}: the {gadget} isn't what I wanted, so please undo the purchase.
Nothing has been charged yet for {order}, so simply drop it.
Since the {gadget} is out of stock until {date}, I would like to step back from the order.
I want out of {order}. I haven't paid the {amount} yet.
Before the parcel goes to {city}: please hold it and void {order}.
You don't need to track anything for me. Just end {order}.
Take the {gadget} off {order} and leave the rest as it is.
The confirmation for {order} came on {date}; I am using my right to withdraw within {days} days.
Instead of changing the address on {order}, let's cancel it altogether.
If {order} cannot arrive by {date}, cancel it.
We spoke about the {gadget}: forget it, I won't be needing it after all.
The button to withdraw {order} is greyed out. Could you do that for me?
{person} placed {order} on my account without asking. I'd like it annulled.
Stop the preorder for the {gadget}, please; I have changed my mind.
I said yes to {order} on the phone on {date}. On reflection, no.
+ Lovely shop, but I ordered the wrong {gadget}; would you be so kind as to cancel it?
+ I adore the {gadget}, I just bought one too many, so please cancel {order}.
- I've had enough of waiting, cancel {order} at once.
- Cancel {order}. I will never order from you again.
- After the way I was spoken to, I want the order for the {gadget} gone.
I want to cancel my order.
Is it still possible to cancel {order}?
Kindly cancel the purchase of the {gadget}.
I've changed my mind about the {gadget}, please cancel it.
I made a mistake with {order} and need to cancel it.
Could you stop {order}? I don't want it any more.
Please withdraw the order I placed on {date}.
"""

REFUND_REQUEST = """
I would like my money back for the {gadget}.
I cancelled {order} on {date}; when will the {amount} be back on my card?
Please refund {order}.
I sent the {gadget} back to {city} on {date} and am waiting for the {amount}.
The {gadget} was {amount} when I bought it and is cheaper now. Could you return the difference?
My {trip} was called off by {company}. How do I get the {amount} back?
You delivered {n} items of {order} and charged for more; reimburse the missing ones, please.
Rather than a voucher I want the {amount} on my account.
Where is the refund you announced on {date}?
The return of {order} has been with you since {date}. The credit has not shown up.
Is it possible to be reimbursed for the delivery fee of {amount}?
I don't want a replacement for the {gadget}, I want the payment returned.
I was told by {first} that {amount} would be paid back within {days} days.
How do I send back the {gadget} and get what I paid?
Please reverse the {amount} for {order}, as the parcel never came.
The {plan} was ended on {date}, but I had paid until {date2}. Please return the rest.
Could the deposit of {amount} for the {trip} be given back?
My statement shows no credit for the {gadget} that went back to you on {date}.
I'm entitled to my {amount}, the {gadget} came with a crack.
You may pay the money for {order} to the same card.
The hotel in {city} says that only you can return the {amount} for our {trip}.
Which form do I fill in to claim back {amount}?
I've got the return label; what about the money for the {gadget}?
Half of the {amount} has come back. And the other half?
{order} is on its way back to you; please pay out once it has been checked.
The late fee of {amount} should not have been taken, kindly credit it.
+ The refund of {amount} for the first item came in no time, superb! Could I have the second one too?
+ Sending the {gadget} back was a breeze. When may I look forward to the {amount}?
- Give me back my {amount} for this miserable {gadget}.
- {days} days and still no refund for {order}. You simply keep people's money.
- I refuse to wait any longer for the {amount} you owe me.
I want a refund.
Can I get a refund for {order}?
How long does a refund take?
I returned the {gadget} and haven't got my money back.
I request a full refund of {amount}.
Please pay back the {amount} I paid for the {gadget}.
The {gadget} is faulty, I'd like to return it and be refunded.
"""

CHANGE_ADDRESS = """
I have moved to {city}; please [update|change] my address.
Can {order} go to {city} instead?
The street on {order} is wrong. How do I correct it?
From {date} on, please send my post to {city}.
My delivery address should be the office of {company} in {city}.
Please put {email} in place of my old email address.
The house number on {order} is missing, it is number {n}.
I'd like statements for the {bank} to go to my new flat in {city}.
Could the {gadget} be left with {person} next door rather than with me?
I am getting married and moving: new surname, new street, all from {date}.
You still have my parents' address in {city} on file. I live elsewhere now.
Where in my profile do I set another delivery address?
The parcel hasn't left yet, so could you redirect it to {city}?
Do you need a proof of residence if I move from {city} to {city2}?
My account shows the old postcode, and the form won't let me edit it.
Send {order} to the pick-up point in {city}, not to my home.
Billing address stays, delivery address changes: {city} from {date}.
My number has changed as well as my street; it's {phone} now.
How long before the move must I tell you? We leave {city} on {date}.
For the {plan} I need the installation to be at the new house in {city}.
Please swap the two addresses that you hold for me: post to {city}, parcels to {city2}.
No cancellation, only a different destination for {order}: {city}.
I made a slip when typing the address of {order}; it's {city}, not {city2}.
The invoice address for {company} is out of date, we are now in {city}.
Kindly forward everything for {person} to {city} until {date}.
+ We've moved to {city} and we love it; could you put the new address on my account?
+ You changed my address in seconds last time. Could you do the same for {order}?
- For the [fourth|fifth|umpteenth] time: I do not live in {city} any more, get my address right!
- It is pathetic that I have to beg to have my address changed.
- You keep sending my bank letters to a stranger in {city}. Fix my address.
I want to change my delivery address.
How can I update my address?
My address has changed, I now live in {city}.
Please correct the shipping address of {order}.
The address on my account is wrong.
Could you deliver {order} to another address in {city}?
I've got a new email address: {email}.
"""

PRODUCT_QUESTION = """
Does the {gadget} come with a cable?
How long is the guarantee on the {gadget}?
Is the {gadget} in stock in your shop in {city}?
What is the difference between the {plan} and the {plan2}?
Can I use the {bank} abroad without a fee?
Does the price of {amount} for the {trip} include breakfast?
Is the {gadget} suitable for a child of {n}?
Which size of the {gadget} should I order if I'm between two?
Do you sell spare parts for the {gadget}?
Will the {gadget} be on offer again before {date}?
Has the {plan} a minimum term?
Before I order: can the {gadget} be returned if it doesn't fit?
What interest does the {bank} pay from {date}?
Is luggage included in the {trip}?
I'm not having a problem, I just wonder whether the {gadget} works with an adapter from {company}.
Is the {gadget} made by {company} or only sold by them?
Can two people share the {plan}?
How much would the {gadget} cost with delivery to {city}?
Is there a version of the {gadget} in [green|black|grey]?
What are the opening hours of your branch in {city}?
Does the {trip} leave from {city} or from {city2}?
Can I pay for the {gadget} in instalments of {amount}?
Are the {gadget} and the {gadget2} compatible?
Is there a student price for the {plan}?
Who is the {bank} meant for, and is there a monthly fee?
Could I take a dog on the {trip}?
Is {amount} the final price of the {gadget}, or is tax added?
Would the {gadget} survive the dishwasher?
+ The {gadget} looks gorgeous! Does it come in other colours?
+ I love my {gadget}; is there a bigger one?
+ The {trip} sounds like a dream. How many nights is it?
- Your description of the {gadget} is a mess. Does it have a battery or not?
- Why does nobody in {city} know whether the {gadget} is waterproof? Hopeless.
- {amount} for the {gadget} is daylight robbery. What exactly is in the box?
Can you tell me more about the {gadget}?
What does the {plan} cost per month?
Which colours does the {gadget} come in?
How big is the {gadget}?
What are the conditions of the {bank}?
Is the {gadget} available in a larger size?
What is included in the {trip}?
"""

INTENTS = {
    "track_order": TRACK_ORDER,
    "delivery_delay": DELIVERY_DELAY,
    "cancel_order": CANCEL_ORDER,
    "refund_request": REFUND_REQUEST,
    "change_address": CHANGE_ADDRESS,
    "product_question": PRODUCT_QUESTION,
}
